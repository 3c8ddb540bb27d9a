"""Exchange requests and replies with the agent process on a device."""

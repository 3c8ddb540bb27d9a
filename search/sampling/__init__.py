"""Keep the Optuna study, and serve samplers that request measurements before a trial."""

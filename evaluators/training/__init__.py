"""Train parents and candidates in a worker process, and define the requests and results of those jobs."""

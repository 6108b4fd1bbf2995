"""The server as a process: start, workers, signals, the data folder, certificates."""

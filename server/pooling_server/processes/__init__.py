"""Server processes: starting and stopping, workers, devices, memory allocation."""

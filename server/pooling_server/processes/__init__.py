"""Server processes: start and stop, workers, devices, memory allocation."""

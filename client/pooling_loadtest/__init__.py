"""Load tests with tensors: `pooling loadtest`, its schedules, its calls and its results."""

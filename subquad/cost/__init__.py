"""What passes cost: steps counted from the sizes, rates measured on CPUs and GPUs."""

"""What bounds of softmax, its output and its rounding rest on, mirroring `subquad.bounds`."""

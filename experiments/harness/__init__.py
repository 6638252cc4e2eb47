"""What every experiment is made with: instances, oracles, timers, counts, and records on disk."""

"""HTTP: profiles by user, health, metrics, the explorer page."""

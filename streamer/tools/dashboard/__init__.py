"""The Grafana dashboard: its panels, the JSON that is made of them, and what their queries say without Grafana."""

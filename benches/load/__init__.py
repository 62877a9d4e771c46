"""The service under load; `python -m load` says how."""

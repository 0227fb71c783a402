"""The page where people see what the gateway does: made by the server, works without script."""

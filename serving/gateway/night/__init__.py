"""From the log to tables that `data.prepare` reads."""

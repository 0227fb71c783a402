"""The live layer: takes events, remembers users, shows new items, and recommends over HTTP."""

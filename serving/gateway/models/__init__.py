"""The models behind a gateway: asked with a deadline, left alone while they do not answer."""

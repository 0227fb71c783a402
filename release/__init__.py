"""What an installation consists of: lock files, bills of materials, an audit."""

"""DVC and MLflow."""

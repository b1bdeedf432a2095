"""Prefect: when, where and how often the stages of dvc.yaml run. Imports neither torch nor mlflow."""

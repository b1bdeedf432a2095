-- A role and a database each for Prefect and MLflow, made once by PostgreSQL's image when its volume is empty.
\getenv prefect_password PREFECT_DB_PASSWORD
\getenv mlflow_password MLFLOW_DB_PASSWORD
CREATE ROLE prefect LOGIN PASSWORD :'prefect_password';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';
CREATE DATABASE prefect OWNER prefect;
CREATE DATABASE mlflow OWNER mlflow;
-- by default every role may connect to every database
REVOKE CONNECT ON DATABASE postgres, prefect, mlflow FROM PUBLIC;
GRANT CONNECT ON DATABASE prefect TO prefect;
GRANT CONNECT ON DATABASE mlflow TO mlflow;

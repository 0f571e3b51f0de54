"""The database schema and its migrations, in SQL that CockroachDB and PostgreSQL both run."""

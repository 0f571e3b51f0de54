"""The security checklist against what runs: policies, deployment, a local system."""

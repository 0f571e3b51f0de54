"""Holds that have expired and wait for their end"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("hold", sa.Column("stage", sa.Integer(), server_default="0", nullable=False), if_not_exists=True)


def downgrade() -> None:
    op.drop_column("hold", "stage", if_exists=True)

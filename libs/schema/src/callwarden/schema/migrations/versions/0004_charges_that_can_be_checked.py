"""Call records say by what their charge can be worked out again"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Without a default, so that no existing record is rewritten, and a release that doesn't know the columns can go on
    # writing records while the new one starts.
    op.add_column("cdr", sa.Column("price", sa.LargeBinary(), nullable=True), if_not_exists=True)
    op.add_column("cdr", sa.Column("granted_s", sa.Integer(), nullable=True), if_not_exists=True)
    op.add_column("cdr", sa.Column("held_micros", sa.BigInteger(), nullable=True), if_not_exists=True)
    op.add_column(
        "cdr", sa.Column("uncharged_micros", sa.BigInteger(), server_default="0", nullable=False), if_not_exists=True
    )


def downgrade() -> None:
    for column in ("uncharged_micros", "held_micros", "granted_s", "price"):
        op.drop_column("cdr", column, if_exists=True)

"""Volume steps, windows and maximum prices of decks"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deck", sa.Column("windows", sa.Text(), server_default=sa.text("''"), nullable=False))
    op.add_column("deck_row", sa.Column("steps", sa.Text(), server_default=sa.text("''"), nullable=False))
    op.add_column("deck_row", sa.Column("off_peak_steps", sa.Text()))
    op.add_column("deck_row", sa.Column("windows", sa.Text(), server_default=sa.text("''"), nullable=False))
    op.add_column("deck_row", sa.Column("maximum_micros", sa.BigInteger()))
    op.add_column(
        "deck_row", sa.Column("cuts_at_maximum", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )


def downgrade() -> None:
    for name in ("cuts_at_maximum", "maximum_micros", "windows", "off_peak_steps", "steps"):
        op.drop_column("deck_row", name)
    op.drop_column("deck", "windows")

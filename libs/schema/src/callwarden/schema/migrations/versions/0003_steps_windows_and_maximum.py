"""Volume steps, windows and maximum prices of decks"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table, name in (("deck", "windows"), ("deck_row", "steps"), ("deck_row", "windows")):
        column = sa.Column(name, sa.Text(), server_default=sa.text("''"), nullable=False)
        op.add_column(table, column, if_not_exists=True)
    op.add_column("deck_row", sa.Column("off_peak_steps", sa.Text()), if_not_exists=True)
    op.add_column("deck_row", sa.Column("maximum_micros", sa.BigInteger()), if_not_exists=True)
    op.add_column(
        "deck_row",
        sa.Column("cuts_at_maximum", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        if_not_exists=True,
    )


def downgrade() -> None:
    for name in ("cuts_at_maximum", "maximum_micros", "windows", "off_peak_steps", "steps"):
        op.drop_column("deck_row", name, if_exists=True)
    op.drop_column("deck", "windows", if_exists=True)

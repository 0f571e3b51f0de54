# Dumps DATABASE_URL (postgresql://…) into FOLDER and forgets dumps older than KEEP_DAYS. A dump takes its name when it
# is whole and can be read; the last one is never forgotten.
name="callwarden-$(date -u +%Y%m%dT%H%M%SZ).dump"
trap 'rm -f "$FOLDER/.$name"' EXIT
pg_dump --format=custom --no-owner --file="$FOLDER/.$name" --dbname="$DATABASE_URL"
pg_restore --list "$FOLDER/.$name" > /dev/null
mv "$FOLDER/.$name" "$FOLDER/$name"
find "$FOLDER" -name 'callwarden-*.dump' ! -name "$name" -mtime +"$KEEP_DAYS" -exec rm -f {} +

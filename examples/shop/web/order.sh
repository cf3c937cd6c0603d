#!/bin/sh
# Takes an order: one more line in the volume.
echo "order $(date -u +%FT%TZ)" >> "$SHOP_DATA/orders"
printf 'Content-Type: text/plain\r\n\r\n'
echo "order number $(wc -l < "$SHOP_DATA/orders")"

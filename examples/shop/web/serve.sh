#!/bin/sh
# Serves the shop until it is asked to stop. The first process of a container gets no default action for signals, so the
# shell takes them.
echo "shop: serving on port $SHOP_PORT, orders in $SHOP_DATA"
busybox httpd -f -v -p "$SHOP_PORT" -h /srv/shop/html &
server=$!
trap 'echo "shop: closing"; kill "$server"; exit 0' TERM INT
wait "$server"

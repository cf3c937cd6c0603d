#!/bin/sh
# Serves the shop until it is asked to stop.
echo "shop: serving on port $SHOP_PORT, orders in $SHOP_DATA"
exec busybox httpd -f -v -p "$SHOP_PORT" -h /srv/shop/html

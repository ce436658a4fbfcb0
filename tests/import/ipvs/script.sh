#!/bin/sh
# what rc.local runs
ipvsadm -C
ipvsadm --set 3600 60 120
/sbin/ipvsadm -A -t 192.0.2.10:http
ipvsadm -a -t 192.0.2.10:http -r 10.0.0.11 -m
ipvsadm -a -t 192.0.2.10:http -r 10.0.0.12:8081 -m -w
ipvsadm --add-server --tcp-service=192.0.2.10:80 -r 10.0.0.13 -m --weight=70000
ipvsadm -e -t 192.0.2.10:http -r 10.0.0.11 -m -w 4
ipvsadm -A -t 192.0.2.11:80 -s ovf
ipvsadm -a -t 192.0.2.11:80 -r 10.0.0.21 -m -w 10
ipvsadm -a -t 192.0.2.11:80 -r 10.0.0.22 -m -w 50
ipvsadm -A -t 192.0.2.12:80 -s fo
ipvsadm -a -t 192.0.2.12:80 -r 10.0.0.21:80 -g -w 10
ipvsadm -a -t 192.0.2.12:80 -r 10.0.0.22:8080 -g -w 50
ipvsadm -A -t 192.0.2.13:80 -s rr
ipvsadm -a -t 192.0.2.13:80 -r 10.0.0.21:80 -g
ipvsadm -D -t 192.0.2.13:80
ipvsadm -A -t lb.example.com:80 -s rr
ipvsadm --start-daemon master --mcast-interface eth1 --syncid 3
ipvsadm -L -n
echo done

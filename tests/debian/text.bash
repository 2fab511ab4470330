# Text that is counted, sorted and cut, in pipelines.
#= 9592
#= libc.so.6
#= +demon:
cat /usr/include/*.h | tr -cs A-Za-z '\n' | tr A-Z a-z | sort | uniq -c | sort -k1,1nr -k2 | sed -n 1,40p
cut -d: -f1,3 /etc/passwd | sort -t: -k2n | paste -sd' ' | fold -w 60
grep -rhoE '^#define +[A-Z_]+' /usr/include/linux | sort -u | tee defines | wc -l
sed -n '/MAP_/p; s/#define/define/; $=' defines | tail -n 20
comm -12 <(sort defines) <(grep -rhoE '^#define +[A-Z_]+' /usr/include/asm-generic | sort -u) | wc -l
join -t: <(sort /etc/passwd) <(sort /etc/group) | cut -c1-40 | nl | tac
split -n l/5 -d defines part.
wc -l part.*
cat part.* | cmp - defines
csplit -sz -f piece. /etc/passwd /daemon/ /games/
head -n 2 piece.*
seq 1 100000 | factor | awk 'NF == 2' | wc -l
od -A d -t x1z -N 64 /bin/bash
base64 /etc/passwd | md5sum
shuf --random-source=/bin/bash -n 5 defines
printf '%s\n' 'a b' 'b c' 'c d' | tsort
numfmt --to=iec 123456789
expr 6 \* 7
sha256sum /bin/* 2>/dev/null | sha256sum
sha512sum /lib/*/libc.so.6
cksum /etc/passwd
b2sum /etc/group
diff -u /etc/passwd <(sed s/daemon/demon/ /etc/passwd) | tail -n +3 || [ $? = 1 ]
rm defines part.* piece.*

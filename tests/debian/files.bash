# find, xargs, tar and gzip: files of the image, and new ones in /tmp.
#= linux.tar
#= the same
#= '/tmp/soft' -> 'dumped'
#= 1970-01-02
#= through
#= -rwxr-x---
find /usr/include -type f -name '*.h' -print0 | sort -z | xargs -0 sha256sum | sha256sum
find /usr/include/linux -name 'a*.h' -exec grep -l struct {} + | sort | xargs -n 1 -P 8 basename | sort | paste -sd' '
find /usr /etc -type l | sort | xargs ls -1 -d | wc -l
find /usr/lib -name '*.py' -size +40k -printf '%f %s %m\n' | sort | tail -n 5

tar --sort=name --mtime=@0 -C /usr -czf linux.tgz include/linux
tar -xzf linux.tgz
diff -r include/linux /usr/include/linux
gzip -dc linux.tgz | tar -tf - | wc -l
zcat linux.tgz | gzip -n | wc -c
gzip -l linux.tgz | tail -n +2 | tr -s ' '
tar -C / -chf - bin/bash | tar -xOf - | cmp - /bin/bash && echo the same

cp -r /usr/include/asm-generic copy
chmod -R u+w copy
mv copy moved
diff -rq moved /usr/include/asm-generic
dd if=/bin/bash of=dumped bs=64k count=3 iflag=fullblock status=none
truncate -s 100000 dumped
md5sum < dumped
ln dumped hard
ln -s dumped soft
stat -c '%h %F %s %N' dumped hard /tmp/soft
readlink -f soft
touch -d @86400 dumped
test dumped -ot moved
date -u -r dumped +%F
mkfifo fifo
cat < fifo > from-fifo &
echo through > fifo
wait
cat from-fifo
rm -r include moved linux.tgz
ls -A
install -m 750 -D /etc/passwd a/b/c
ls -l a/b/c | cut -c1-10

# What a read-only root says, and what is not there.
for try in 'touch /etc/x' 'rm /bin/sh' 'mkdir /usr/x' 'ln -s x /x' 'mv /etc /x' 'chmod 777 /etc/passwd' 'touch -c /etc/passwd' \
    'truncate -s 0 /etc/passwd' 'cat /etc' 'cat /no/such' 'ls /etc/passwd/x' 'cd /etc/passwd' 'rmdir /etc' 'mknod /x p'; do
    ! $try || echo "$try: done"
done

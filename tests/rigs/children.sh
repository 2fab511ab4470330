# Thirty programs, one after the other and then several at once.
true=/bin/true
[ "$1" != dynamic ] || true=/usr/bin/true
number=0
while [ $number -lt 20 ]; do
    $true || exit 1
    number=$((number + 1))
done
for each in 1 2 3 4 5 6 7 8 9 10; do $true & done
wait
echo "$number and 10"

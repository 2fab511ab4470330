# awk, sed and perl, and what they start.
#= read two
#= COPROCESS
#= 1,234,567,890
#= 3 6 9 12 15
#= THROUGH A PIPE
#= caught alarm
#= by socket
#= 338350 -4 1970-01-02
#= z
#= x
awk -F: '{ shells[$NF]++ } END { n = asorti(shells, s); for (i = 1; i <= n; i++) print s[i], shells[s[i]] }' /etc/passwd
awk 'BEGIN {
    while (("echo one; echo two" | getline line) > 0) print "read", line
    print "to a program" | "cat 1>&2"; close("cat 1>&2")
    printf "%d %s\n", system("exit 3"), strftime("%Y", 0, 1)
    cmd = "tr a-z A-Z"; print "coprocess" |& cmd; close(cmd, "to"); cmd |& getline up; print up
}'

sed -E ':a; s/^([0-9]+)([0-9]{3})/\1,\2/; ta' <<< 1234567890
sed -n 'H; ${x; s/\n/|/g; p}' <<< $'one\ntwo\nthree'
sed --sandbox 'y/abc/xyz/' <<< abcabc
printf 'x\n' > in-place
sed -i.old s/x/y/ in-place

perl - << 'END'
use strict; use warnings;
use POSIX qw(floor strftime WNOHANG); use List::Util qw(sum reduce); use Socket;
$| = 1;
my @kids;
for my $n (1 .. 5) { my $pid = fork // die; exit $n * 3 unless $pid; push @kids, $pid }
print join(" ", map { waitpid $_, 0; $? >> 8 } @kids), "\n";
open my $out, "|-", "tr a-z A-Z" or die; print $out "through a pipe\n"; close $out or die;
my $text = qx(grep -c . /etc/passwd); chomp $text; print "lines: $text\n";
$SIG{ALRM} = sub { die "alarm\n" };
eval { alarm 1; select undef, undef, undef, 20; }; print "caught $@";
socketpair my $one, my $two, AF_UNIX, SOCK_STREAM, PF_UNSPEC or die;
syswrite $one, "by socket\n"; sysread $two, my $got, 99; print $got;
print sum(map { $_ ** 2 } 1 .. 100), " ", floor(-3.5), " ", strftime("%F", gmtime 86400), "\n";
my %h; $h{lc $1}++ while q(The cat and the hat and THE bat) =~ /(\w+)/g;
print map { "$_=$h{$_} " } sort keys %h; print "\n";
print unpack("H*", pack "NnC", 1, 2, 3), " ", sprintf("%.10g", atan2(1, 1) * 4), "\n";
warn "to stderr\n";
END
perl -ne 'print if /^\s*#\s*include/' /usr/include/stdio.h
perl -pi -e 's/y/z/' in-place
cat in-place in-place.old

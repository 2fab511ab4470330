# Libraries that Python loads, its own and others'.
#= [1, 2, 3, 4, 5, 7, 8, 9]
#= No such file
#= lzma True
#= True True
#= True
#= 3.14
import bz2, ctypes, ctypes.util, decimal, hashlib, importlib, json, lzma, math, os, random, re, sqlite3, ssl, struct, sys, zlib

libm, libc = ctypes.CDLL("libm.so.6"), ctypes.CDLL(None, use_errno=True)
libm.pow.restype, libm.pow.argtypes = ctypes.c_double, [ctypes.c_double] * 2
print(libm.pow(2, 0.5), libc.strlen(b"seven77"))
compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
numbers = (ctypes.c_int * 8)(5, 3, 8, 1, 9, 2, 7, 4)
libc.qsort(numbers, 8, 4, compare(lambda a, b: a[0] - b[0]))
print(list(numbers))
libc.open(b"/no/such", 0)
print(os.strerror(ctypes.get_errno()))
for name in ("libz.so.1", "libcrypto.so.3", "libsqlite3.so.0", "libncursesw.so.6", "libexpat.so.1", "libffi.so.8", "libno.so"):
    try:
        print(ctypes.CDLL(name)._name)
    except OSError as error:
        print(error)
z = ctypes.CDLL("libz.so.1")
z.zlibVersion.restype = ctypes.c_char_p
print(z.zlibVersion() == zlib.ZLIB_RUNTIME_VERSION.encode())
# dlopen(3), dlclose(3) and once more.
import _ctypes
for _ in range(20):
    _ctypes.dlclose(_ctypes.dlopen("libgmp.so.10", os.RTLD_NOW))

data = open("/usr/bin/python3", "rb").read(1 << 20)
for module in (zlib, bz2, lzma):
    print(module.__name__, module.decompress(module.compress(data)) == data)
for name in ("md5", "sha1", "sha256", "sha3_256", "blake2b"):
    print(name, hashlib.new(name, data).hexdigest()[:16])
db = sqlite3.connect("numbers.sqlite")
db.execute("pragma journal_mode=wal")
db.execute("create table n (i integer primary key, s text)")
with db:
    db.executemany("insert into n values (?, ?)", ((i, str(i) * 3) for i in range(1000)))
print(db.execute("select count(*), sum(i), max(s) from n where s like '%7%'").fetchone())
db.close()
os.remove("numbers.sqlite")
print(decimal.Decimal(2).sqrt(), random.Random(1).random(), struct.pack("<id", 1, 2.5).hex(), ssl.OPENSSL_VERSION.split()[0])
# Every module that is a shared library.
import sysconfig
names = sorted(name.split(".")[0] for name in os.listdir(sysconfig.get_path("platstdlib") + "/lib-dynload"))
print(len(names) > 20, len([importlib.import_module(name) for name in names if "test" not in name]) > 20)
# Each with its text: of its own file, or of the image.
maps = open("/proc/self/maps").read()
print(len(re.findall(r"r-xp .* /(?!memfd)", maps)) > 30)
print(math.pi, json.loads(json.dumps({"ä": [1, None, 2.5]})), sys.version_info[0])

# Programs, threads and processes of Python.
#= FileNotFoundError
#= ['0', '1', '2', '3', '4']
#= SIGUSR1
#= b'by a thread
import asyncio, concurrent.futures, hashlib, json, mmap, multiprocessing, os, queue, signal, subprocess, sys, threading, zlib

def digest(path):
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return os.path.basename(path), hashlib.sha256(mapped).hexdigest()[:16], zlib.crc32(mapped), len(mapped)

def work(number):
    return sum(i * i for i in range(number)), os.getppid() > 1

async def both():
    run = [asyncio.create_subprocess_exec("sh", "-c", f"sleep 0.0{n}; echo {n}", stdout=-1) for n in range(5)]
    out = [await (await process).communicate() for process in run]
    return [text.decode().strip() for text, _ in out]

def main():
    print(subprocess.run(["sort", "-r"], input=b"a\nb\nc\n", capture_output=True, check=True).stdout)
    print(subprocess.run("echo $0; exit 7", shell=True).returncode)
    print(subprocess.run(["sh", "-c", "kill -9 $$"]).returncode)
    with subprocess.Popen(["cat"], stdin=-1, stdout=-1, start_new_session=True, close_fds=True) as cat:
        print(cat.communicate(b"through cat"))
    for bad in (["/no/such"], ["/etc/passwd"], ["/etc"]):
        try:
            subprocess.run(bad)
        except OSError as error:
            print(type(error).__name__, error)
    try:
        subprocess.run(["sleep", "10"], timeout=0.1)
    except subprocess.TimeoutExpired as error:
        print(error.cmd)

    paths = sorted(entry.path for entry in os.scandir("/usr/bin") if entry.is_file(follow_symlinks=False))[:60]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        print(json.dumps(list(pool.map(digest, paths)), indent=1)[:400])
        print(sum(len(out.stdout) for out in pool.map(lambda _: subprocess.run(["cat", "/etc/passwd"], capture_output=True), range(40))))

    for way in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(way).Pool(3) as pool:
            print(way, pool.map(work, [10, 100, 1000]))

    print(asyncio.run(both()))

    # Of all threads the one that waits gets it: its wait is interrupted.
    got = queue.SimpleQueue()
    signal.signal(signal.SIGUSR1, lambda number, frame: got.put(number))
    threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    print(signal.Signals(got.get(timeout=10)).name)
    pid = os.posix_spawn("/bin/echo", ["echo", "spawned"], {}, setsigdef=[signal.SIGUSR1], setsigmask=[])
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    thread = """import os, threading
threading.Thread(target=os.execv, args=("/bin/echo", ["echo", "by a thread"])).start()
threading.Event().wait()"""
    print(subprocess.run([sys.executable, "-c", thread], capture_output=True).stdout)

# Not in the children that multiprocessing spawns.
if __name__ == "__main__":
    main()

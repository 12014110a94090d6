package anonymous

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// watcher is the name under which a test's own program is run as the watcher. Main looks for it.
const watcher = "shallot-test-watcher"

// watchedName is the interface's.
const watchedName = "watched"

// Watch has a command run where there is one network interface, by which everything would go that leaves the machine: a tunnel of which packets come out again here, and are written
// into a file. Its attributes must be as they are to be. The test's TestMain has to call Main.
func Watch(cmd *exec.Cmd, packets string) {
	cmd.Args = append([]string{watcher, packets, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/proc/self/exe"
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	a := cmd.SysProcAttr
	a.Cloneflags |= syscall.CLONE_NEWNET | syscall.CLONE_NEWNS
	if os.Geteuid() != 0 {
		a.Cloneflags |= syscall.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
}

// watch is the watcher: it makes the interface, runs the command and passes signals on to it, and returns its exit code.
func watch(packets string, argv []string) (code int, err error) {
	log, err := os.OpenFile(packets, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 1, err
	}
	defer log.Close()
	tunnel, err := openTunnel()
	if err != nil {
		return 1, err
	}
	if err := moveNameServer(packets + ".resolv.conf"); err != nil {
		return 1, err
	}
	go func() { _ = readTunnel(tunnel, log) }()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// openTunnel makes the interface, with a way to everywhere.
func openTunnel() (*os.File, error) {
	const device = "/dev/net/tun"
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", device, err)
	}
	request, err := unix.NewIfreq(watchedName)
	if err != nil {
		return nil, err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return nil, fmt.Errorf("make a tunnel: %w", err)
	}
	for _, line := range []string{
		"link set lo up", "link set " + watchedName + " up",
		"addr add 198.18.0.1/15 dev " + watchedName, "-6 addr add fd00::1/64 nodad dev " + watchedName,
		"route add default dev " + watchedName, "-6 route add default dev " + watchedName,
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	return os.NewFile(uintptr(fd), device), nil
}

// moveNameServer has names asked for beyond the tunnel, whatever the machine's own resolver is, and given up on soon.
func moveNameServer(file string) error {
	if err := os.WriteFile(file, []byte("nameserver 198.18.0.53\noptions timeout:1 attempts:1\n"), 0o600); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("keep mounts to oneself: %w", err)
	}
	if err := unix.Mount(file, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("put another /etc/resolv.conf in place: %w", err)
	}
	return nil
}

// readTunnel writes down what comes out of the tunnel.
func readTunnel(tunnel *os.File, log *os.File) error {
	b := make([]byte, 64<<10)
	for {
		n, err := tunnel.Read(b)
		if err != nil {
			return err
		}
		if p := packet(b[:n]); p != "" {
			if _, err := fmt.Fprintln(log, p); err != nil {
				return err
			}
		}
	}
}

// packet says where a packet would have gone. What the kernel says by itself on a new interface (ICMPv6, for routers and neighbours) is none: "".
func packet(b []byte) string {
	const hopByHop, icmp6 = 0, 58
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		head := int(b[0]&15) * 4
		return to(b[9], netip.AddrFrom4([4]byte(b[16:20])), b[min(head, len(b)):])
	case len(b) >= 40 && b[0]>>4 == 6:
		if b[6] == icmp6 || b[6] == hopByHop {
			return ""
		}
		return to(b[6], netip.AddrFrom16([16]byte(b[24:40])), b[40:])
	}
	return fmt.Sprintf("%d bytes of no IP", len(b))
}

func to(protocol byte, addr netip.Addr, rest []byte) string {
	name := map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[protocol]
	if name == "" || len(rest) < 4 {
		return fmt.Sprintf("protocol %d to %s", protocol, addr)
	}
	return fmt.Sprintf("%s to %s", name, netip.AddrPortFrom(addr, binary.BigEndian.Uint16(rest[2:])))
}

func readPackets(path string) (lines []string, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("nothing was watched: %w", err)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		lines = append(lines, s.Text())
	}
	return slices.Compact(lines), nil
}

package anonymous

import (
	"strings"
	"testing"
)

// Lines as strace 6.1 writes them.
func TestVerdict(t *testing.T) {
	for line, want := range map[string]string{
		`12  socket(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC|SOCK_NONBLOCK, 0) = 7`:                                                                    "",
		`12  socketpair(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC, 0, [5, 6]) = 0`:                                                                      "",
		`12  connect(7, {sa_family=AF_UNIX, sun_path="/h/run/tor-socks.sock"}, 24) = 0`:                                                         "",
		`12  connect(7, {sa_family=AF_UNIX, sun_path="/sa_family=AF_INET"}, 24) = 0`:                                                            "",
		`12  bind(3, {sa_family=AF_UNIX, sun_path="/h/run/node.sock"}, 20) = 0`:                                                                 "",
		`12  sendmsg(7, {msg_name=NULL, msg_namelen=0, msg_iov=[{iov_base="sa_family=AF_INET, \"connect(", iov_len=9}]}, 0) = 9`:                "",
		`12  socket(AF_NETLINK, SOCK_RAW|SOCK_CLOEXEC, NETLINK_ROUTE) = 14`:                                                                     "",
		`12  socket(AF_NETLINK, SOCK_RAW|SOCK_CLOEXEC, NETLINK_ROUTE <unfinished ...>`:                                                          "",
		`12  <... socket resumed>) = 14`:                                                                                                        "",
		`12  socketpair(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC, 0 <unfinished ...>`:                                                                  "",
		`12  <... socketpair resumed>[14, 15]) = 0`:                                                                                             "",
		`12  bind(14, {sa_family=AF_NETLINK, nl_pid=0, nl_groups=00000000}, 12) = 0`:                                                            "",
		`12  sendto(14, [{nlmsg_len=17, nlmsg_type=RTM_GETADDR}, {ifa_family=AF_INET, ...}], 17, 0, {sa_family=AF_NETLINK, nl_pid=0}, 12) = 17`: "",
		`12  <... accept4 resumed>{sa_family=AF_UNIX}, [112 => 2], SOCK_CLOEXEC|SOCK_NONBLOCK) = 9`:                                             "",
		`12  setsockopt(7, SOL_SOCKET, SO_BROADCAST, [1], 4) = 0`:                                                                               "",
		`12  +++ exited with 0 +++`: "",

		`12  socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC|SOCK_NONBLOCK, IPPROTO_TCP) = 7`:                                                "a socket of AF_INET",
		`12  socket(AF_INET6, SOCK_DGRAM|SOCK_CLOEXEC|SOCK_NONBLOCK, IPPROTO_IP <unfinished ...>`:                                     "a socket of AF_INET6",
		`12  socket(AF_INET, SOCK_STREAM, IPPROTO_TCP) = -1 EAFNOSUPPORT (Address family not supported by protocol)`:                  "a socket of AF_INET",
		`12  socket(AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT) = 3`:                                                                "a socket of AF_NETLINK",
		`12  socket(AF_PACKET, SOCK_RAW, htons(0x3 /* ETH_P_??? */)) = 3`:                                                             "a socket of AF_PACKET",
		`12  socketpair(AF_INET, SOCK_STREAM, 0 <unfinished ...>`:                                                                     "a socket of AF_INET",
		`12  socket(AF_VSOCK, SOCK_STREAM, 0) = 3`:                                                                                    "a socket of AF_VSOCK",
		`12  connect(7, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("10.0.0.1")}, 16) = 0`:                             "an address of AF_INET",
		`12  connect(7, {sa_family=AF_INET6, sin6_port=htons(4077), sin6_flowinfo=htonl(0)}, 28 <unfinished ...>`:                     "an address of AF_INET6",
		`12  sendto(9, "sa_family=AF_UNIX", 17, 0, {sa_family=AF_INET, sin_port=htons(4078)}, 16) = 17`:                               "an address of AF_INET",
		`12  sendmsg(9, {msg_name={sa_family=AF_INET, sin_port=htons(4078)}, msg_namelen=16, msg_iov=[{iov_base="", iov_len=0}]}, 0)`: "an address of AF_INET",
		`12  bind(9, {sa_family=AF_VSOCK, svm_cid=VMADDR_CID_HOST, svm_port=1}, 16) = 0`:                                              "an address of AF_VSOCK",
		`12  <... accept4 resumed>{sa_family=AF_INET, sin_port=htons(1)}, [16], 0) = 9`:                                               "an address of AF_INET",
		`12  io_uring_setup(32, {flags=0}) = 4`:                                                                                       "what goes by io_uring is not seen",
	} {
		leaks, _, err := Judge("p", strings.NewReader(line+"\n"))
		got := ""
		if len(leaks) > 0 {
			got = leaks[0].Why
		}
		if err != nil || got != want || len(leaks) > 1 {
			t.Errorf("%s\nis %v, %v, want %q", line, leaks, err, want)
		}
	}
}

func TestVerdictCounts(t *testing.T) {
	_, calls, err := Judge("p", strings.NewReader(`1  socket(AF_UNIX, SOCK_STREAM, 0) = 3
1  connect(3, {sa_family=AF_UNIX, sun_path="/x"}, 5 <unfinished ...>
2  --- SIGURG {si_signo=SIGURG} ---
1  <... connect resumed>) = 0
`))
	if err != nil || calls != (Calls{All: 3, Unix: 1}) {
		t.Errorf("%+v, %v", calls, err)
	}
}

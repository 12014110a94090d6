package torcontroltest

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

const unrecognized = "510 Unrecognized command\r\n"

// answer is what is said to one line; not ok ends the connection.
func (f *Tor) answer(c *conn, line string) (string, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = append(f.heard, Command{time.Now(), line})
	word, rest, _ := strings.Cut(line, " ")
	if f.b.Silent {
		return "", true
	}
	if reply, ok := f.b.Replies[word]; ok {
		return reply, reply != ""
	}
	switch word {
	case "PROTOCOLINFO":
		return f.protocolInfo(), true
	case "AUTHCHALLENGE":
		return f.challenge(c, rest), true
	case "AUTHENTICATE":
		return f.authenticate(c, rest)
	}
	if !c.trusted {
		return "514 Authentication required.\r\n", false
	}
	switch word {
	case "GETCONF":
		return f.getConf(), true
	case "GETINFO":
		return f.getInfo(strings.Fields(rest)), true
	case "SETEVENTS":
		c.listens = true
		return "250 OK\r\n", true
	case "ADD_ONION":
		return f.add(line, strings.Fields(rest)), true
	case "DEL_ONION":
		if _, ok := f.services[rest]; !ok {
			return "552 Unknown Onion Service id\r\n", true
		}
		delete(f.services, rest)
		return "250 OK\r\n", true
	case "ONION_CLIENT_AUTH_ADD":
		return f.authorize(strings.Fields(rest)), true
	}
	return unrecognized, true
}

func (f *Tor) protocolInfo() string {
	var b strings.Builder
	b.WriteString("250-PROTOCOLINFO 1\r\n250-AUTH METHODS=" + f.b.Methods)
	if strings.Contains(f.b.Methods, "COOKIE") {
		b.WriteString(` COOKIEFILE="` + f.b.CookieFile + `"`)
	}
	if b.WriteString("\r\n"); f.b.Version != "" {
		b.WriteString(`250-VERSION Tor="` + f.b.Version + "\"\r\n")
	}
	b.WriteString("250 OK\r\n")
	return b.String()
}

func (f *Tor) hash(of, clientNonce, serverNonce string) []byte {
	m := hmac.New(sha256.New, []byte("Tor safe cookie authentication "+of+" hash"))
	m.Write(f.cookie)
	for _, nonce := range []string{clientNonce, serverNonce} {
		b, _ := hex.DecodeString(nonce)
		m.Write(b)
	}
	return m.Sum(nil)
}

func (f *Tor) challenge(c *conn, rest string) string {
	var server [32]byte
	_, _ = rand.Read(server[:]) // it never fails
	nonce := hex.EncodeToString(server[:])
	client := strings.TrimPrefix(rest, "SAFECOOKIE ")
	c.clientNonce = hex.EncodeToString(f.hash("controller-to-server", client, nonce))
	return fmt.Sprintf("250 AUTHCHALLENGE SERVERHASH=%X SERVERNONCE=%s\r\n", f.hash("server-to-controller", client, nonce), strings.ToUpper(nonce))
}

func (f *Tor) authenticate(c *conn, given string) (string, bool) {
	cookie := strings.Contains(f.b.Methods, "SAFECOOKIE") && c.clientNonce != "" && strings.EqualFold(given, c.clientNonce)
	password := f.b.Password != "" && strings.EqualFold(given, hex.EncodeToString([]byte(f.b.Password)))
	if !cookie && !password {
		return "515 Authentication failed: wrong\r\n", true
	}
	c.trusted = true
	return "250 OK\r\n", true
}

func (f *Tor) getConf() string {
	flag := "0"
	if f.b.SingleHop {
		flag = "1"
	}
	lines := []string{"HiddenServiceSingleHopMode=" + flag, "HiddenServiceNonAnonymousMode=" + flag}
	for _, p := range f.b.SocksPorts {
		lines = append(lines, "SocksPort="+p)
	}
	return reply(lines)
}

func reply(lines []string) string {
	var b strings.Builder
	for i, l := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		b.WriteString("250" + sep + l + "\r\n")
	}
	return b.String()
}

func (f *Tor) getInfo(keys []string) string {
	var lines []string
	digit := map[bool]string{true: "1", false: "0"}
	for _, k := range keys {
		switch k {
		case "status/bootstrap-phase":
			lines = append(lines, fmt.Sprintf(`%s=NOTICE BOOTSTRAP PROGRESS=%d TAG=%s SUMMARY="In words"`, k, f.b.Progress, f.b.Tag))
		case "network-liveness":
			lines = append(lines, k+"="+map[bool]string{true: "up", false: "down"}[f.b.Live])
		case "status/circuit-established":
			lines = append(lines, k+"="+digit[f.b.Circuits])
		case "status/enough-dir-info":
			lines = append(lines, k+"="+digit[f.b.Directory])
		case "onions/detached":
			ids := slices.Sorted(maps.Keys(f.services))
			if len(ids) > 1 {
				return "250+onions/detached=\r\n" + strings.Join(ids, "\r\n") + "\r\n.\r\n250 OK\r\n"
			}
			lines = append(lines, k+"="+strings.Join(ids, ""))
		default:
			return "552 Unrecognized key\r\n"
		}
	}
	return reply(append(lines, "OK"))
}

func (f *Tor) add(line string, args []string) string {
	if len(args) == 0 {
		return "512 Missing argument\r\n"
	}
	_, blob, _ := strings.Cut(args[0], ":")
	id := serviceOf(blob)
	for _, a := range args[1:] {
		if strings.HasPrefix(a, "PoWDefensesEnabled") && !f.b.ProofOfWork {
			return "512 Bad arguments to ADD_ONION: Unrecognized keyword argument \"PoWDefensesEnabled\"\r\n"
		}
	}
	if id == "" {
		return "512 Failed to decode ED25519-V3 key\r\n"
	}
	_, detached := f.services[id]
	if _, other := f.others[id]; detached || other {
		return "550 Onion address collision\r\n"
	}
	f.services[id] = line
	if f.b.Uploads > 0 {
		time.AfterFunc(f.b.UploadsAfter, func() { f.upload(id, line) })
	}
	said := id
	if f.b.ServiceID != "" {
		said = f.b.ServiceID
	}
	return "250-ServiceID=" + said + "\r\n250 OK\r\n"
}

// upload is what a tor tells of a service that it publishes, if it still has it.
func (f *Tor) upload(id, line string) {
	f.mu.Lock()
	n := f.b.Uploads
	if f.services[id] != line || f.down || f.b.Progress < 100 {
		n = 0
	}
	f.mu.Unlock()
	for i := range n {
		f.Emit(fmt.Sprintf("HS_DESC UPLOAD %s UNKNOWN $%040X%%relay desc HSDIR_INDEX=00", id, i))
		f.Emit(fmt.Sprintf("HS_DESC UPLOADED %s UNKNOWN $%040X%%relay", id, i))
	}
}

func (f *Tor) authorize(args []string) string {
	if len(args) != 2 || !strings.HasPrefix(args[1], "x25519:") {
		return "512 Bad arguments\r\n"
	}
	_, had := f.clients[args[0]]
	f.clients[args[0]] = strings.TrimPrefix(args[1], "x25519:")
	if had {
		return "251 Client for onion existed and replaced\r\n"
	}
	return "252 Registered client and decrypted desc\r\n"
}

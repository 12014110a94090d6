package onionsvc

import "fmt"

// Network is what tor says of its connection to the Tor network.
type Network struct {
	Progress  int    // of the start, 0 to 100
	Tag       string // tor's name for what it does
	Reason    string // tor's word for why that does not work, where it does not
	Live      bool   // something was heard from the network lately
	Circuits  bool   // circuits can be made
	Directory bool   // enough relays are known
}

// Online tells whether traffic can be sent.
func (n Network) Online() bool { return n.Progress >= 100 && n.Live && n.Circuits && n.Directory }

// tags are tor's names for the steps of its start. Its own summaries are not passed on, since a bridge's or a relay's address may be in them.
var tags = map[string]string{
	"starting":               "tor is starting",
	"conn_pt":                "starting the pluggable transport",
	"conn_done_pt":           "the pluggable transport runs",
	"conn_proxy":             "connecting to the proxy",
	"conn_done_proxy":        "connected to the proxy",
	"conn":                   "connecting to a relay",
	"conn_done":              "connected to a relay",
	"handshake":              "shaking hands with a relay",
	"handshake_done":         "shook hands with a relay",
	"onehop_create":          "making a circuit for the directory",
	"requesting_status":      "asking for the list of relays",
	"loading_status":         "loading the list of relays",
	"loading_keys":           "loading the keys of the authorities",
	"requesting_descriptors": "asking for descriptions of relays",
	"loading_descriptors":    "loading descriptions of relays",
	"enough_dirinfo":         "enough relays are known",
	"ap_conn_pt":             "starting the pluggable transport for circuits",
	"ap_conn_done_pt":        "the pluggable transport for circuits runs",
	"ap_conn_proxy":          "connecting to the proxy for circuits",
	"ap_conn_done_proxy":     "connected to the proxy for circuits",
	"ap_conn":                "connecting to a relay for circuits",
	"ap_conn_done":           "connected to a relay for circuits",
	"ap_handshake":           "shaking hands with a relay for circuits",
	"ap_handshake_done":      "shook hands with a relay for circuits",
	"circuit_create":         "making a circuit",
	"done":                   "the start is over",
}

// reasons are tor's words for why a connection failed.
var reasons = map[string]string{
	"MISC":             "for a reason that tor does not name",
	"CONNECTREFUSED":   "the connection is refused",
	"TLS_ERROR":        "the encrypted connection cannot be made: is something in between that intercepts it?",
	"CONNECTRESET":     "the connection is cut: is Tor blocked here? bridges may help",
	"TIMEOUT":          "nobody answers: is Tor blocked here? bridges may help",
	"NOROUTE":          "there is no way to the network: is this machine connected?",
	"IOERROR":          "the connection broke",
	"RESOURCELIMIT":    "this machine has no room for more connections",
	"PT_MISSING":       "the pluggable transport of a bridge is not configured",
	"IDENTITY":         "a relay or bridge is another than was expected: is the bridge line right, and this machine's clock?",
	"DONE":             "the other side ended the connection",
	"CLOCK_JUMPED":     "this machine's clock jumped",
	"DORMANT":          "tor slept, since nobody used it",
	"CONFIG":           "tor was configured anew",
	"EXTERNAL_ADDRESS": "this machine's address changed",
}

// Detail says in words what it waits for, "" when it is online. It has no addresses, whatever tor said.
func (n Network) Detail() string {
	switch {
	case n.Online():
		return ""
	case n.Progress < 100:
		return n.because(orElse(tags[n.Tag], "tor is starting"))
	case !n.Directory:
		return n.because("too few relays are known")
	case !n.Live:
		return n.because("nothing is heard from the network: is this machine connected?")
	}
	return n.because("no circuit can be made")
}

func (n Network) because(text string) string {
	if n.Reason == "" {
		return text
	}
	return fmt.Sprintf("%s; it does not work: %s", text, orElse(reasons[n.Reason], "for a reason that is not known here; tor's own log says more"))
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

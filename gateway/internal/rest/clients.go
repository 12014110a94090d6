package rest

import (
	"errors"
	"io/fs"
	"net/http"
	"path/filepath"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/mtls"
)

// clientView is somebody who has a certificate to call the node from outside.
type clientView struct {
	Name    string    `json:"name"`
	Added   time.Time `json:"added_at"`
	Expires time.Time `json:"expires_at"`
	Revoked bool      `json:"revoked"`
}

type clientsView struct {
	Clients []clientView `json:"clients"`
	// Reason is why the list is not to be seen from here, in words.
	Reason string `json:"reason"`
}

// clients: GET /v1/clients. The gateway knows what the authority has put into its directory, and needs no key to read it.
func (s *server) clients(w http.ResponseWriter, r *http.Request, _ map[string]string) {
	v := clientsView{Clients: []clientView{}}
	if s.TLSDir == "" {
		v.Reason = "the processes of this node speak by Unix sockets, so that nobody calls it with a certificate: 'shallot pki run' is for nodes whose services are apart"
		writeJSON(w, http.StatusOK, v)
		return
	}
	file := filepath.Join(s.TLSDir, mtls.FileClients)
	err := readJSON(file, maxClients, &v)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		v.Reason = "the authority has put no list of clients here: 'shallot client ls' has it, beside 'shallot pki run'"
	case err != nil:
		s.problems.write(w, r, fault.FailedPrecondition("CLIENTS_UNREADABLE", "the list of clients cannot be read: see that 'shallot pki run' runs, which writes it").Because(err))
		return
	}
	writeJSON(w, http.StatusOK, v)
}

// maxClients bounds the list, in bytes.
const maxClients = 8 << 20

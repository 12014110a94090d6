package rest

import (
	"net/http"
	"time"
)

// tokenView is a token as everybody may see it who has one.
type tokenView struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created_at"`
}

// tokens: GET /v1/tokens
func (s *server) tokens(w http.ResponseWriter, _ *http.Request, _ map[string]string) {
	list := []tokenView{}
	for _, t := range s.Guard.Keys.Tokens() {
		list = append(list, tokenView{t.Name, t.Created})
	}
	writeJSON(w, http.StatusOK, struct {
		Tokens []tokenView `json:"tokens"`
	}{list})
}

// addToken: POST /v1/tokens {"name"}
func (s *server) addToken(w http.ResponseWriter, r *http.Request, _ map[string]string) {
	var body struct {
		Name string `json:"name"`
	}
	err := readSmall(w, r, &body)
	if err != nil {
		s.problems.write(w, r, err)
		return
	}
	token, err := s.Guard.Keys.Add(callerOf(r), body.Name)
	if err != nil {
		s.problems.write(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, struct {
		Name  string `json:"name"`
		Token string `json:"token"`
	}{body.Name, token})
}

// revokeToken: POST /v1/tokens/{name}:revoke
func (s *server) revokeToken(w http.ResponseWriter, r *http.Request, path map[string]string) {
	if err := s.Guard.Keys.Revoke(callerOf(r), path["name"]); err != nil {
		s.problems.write(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, struct{}{})
}

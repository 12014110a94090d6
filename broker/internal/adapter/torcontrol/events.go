package torcontrol

import (
	"bufio"
	"errors"
	"strconv"
	"strings"

	"github.com/shallot-net/shallot/broker/internal/app/onions"
	"github.com/shallot-net/shallot/broker/internal/domain/onionsvc"
)

// maxLine is of a line that is skipped since it is longer than any that matters; a longer one ends the connection.
const maxLine = 64 << 10

// read hands events on until the connection ends.
func (s *session) read() {
	for {
		line, err := readLine(s.listener.text.R)
		if err != nil {
			s.end(s.listener.wrong(err))
			return
		}
		e, ok := parseEvent(line)
		if !ok {
			continue
		}
		select {
		case s.events <- e:
		case <-s.done:
			return
		}
	}
}

// readLine returns the next line without its end, "" for one that does not fit the reader's buffer.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	if err == nil {
		return strings.TrimRight(string(line), "\r\n"), nil
	}
	for n := len(line); errors.Is(err, bufio.ErrBufferFull); n += len(line) {
		if n > maxLine {
			return "", errTooMuch
		}
		line, err = r.ReadSlice('\n')
	}
	return "", err
}

// parseEvent reads one line of the events that are subscribed to. Any other line, also one that is torn, is not ok.
func parseEvent(line string) (onions.Event, bool) {
	rest, ok := strings.CutPrefix(line, "650 ")
	if !ok {
		return onions.Event{}, false
	}
	name, rest, _ := strings.Cut(rest, " ")
	switch name {
	case "HS_DESC":
		return parseDescriptor(rest)
	case "NETWORK_LIVENESS":
		state, _, _ := strings.Cut(rest, " ")
		return onions.Event{Kind: onions.EventLive, Up: state == "UP"}, state == "UP" || state == "DOWN"
	case "STATUS_CLIENT":
		return parseStatus(rest)
	}
	return onions.Event{}, false
}

// parseDescriptor reads "UPLOADED ADDRESS AUTH DIRECTORY …".
func parseDescriptor(rest string) (onions.Event, bool) {
	action, rest, _ := strings.Cut(rest, " ")
	id, _, _ := strings.Cut(rest, " ")
	e := onions.Event{ServiceID: id}
	switch action {
	case "UPLOAD":
		e.Kind = onions.EventUpload
	case "UPLOADED":
		e.Kind = onions.EventUploaded
	default:
		return onions.Event{}, false
	}
	if onionsvc.CheckID(id) != nil {
		return onions.Event{}, false
	}
	return e, true
}

// parseStatus reads "SEVERITY ACTION KEY=VALUE …".
func parseStatus(rest string) (onions.Event, bool) {
	_, after, _ := strings.Cut(rest, " ")
	action, args, _ := strings.Cut(after, " ")
	switch action {
	case "BOOTSTRAP":
		return parseBootstrap(rest)
	case "CIRCUIT_ESTABLISHED":
		return onions.Event{Kind: onions.EventCircuits, Up: true}, true
	case "CIRCUIT_NOT_ESTABLISHED":
		return onions.Event{Kind: onions.EventCircuits, Reason: keyword(values(args)["REASON"])}, true
	case "ENOUGH_DIR_INFO":
		return onions.Event{Kind: onions.EventDirectory, Up: true}, true
	case "NOT_ENOUGH_DIR_INFO":
		return onions.Event{Kind: onions.EventDirectory}, true
	}
	return onions.Event{}, false
}

// parseBootstrap reads "SEVERITY BOOTSTRAP PROGRESS=10 TAG=conn …", as an event has it and as GETINFO answers.
func parseBootstrap(s string) (onions.Event, bool) {
	_, after, _ := strings.Cut(s, " ")
	args, ok := strings.CutPrefix(after, "BOOTSTRAP ")
	if !ok {
		return onions.Event{}, false
	}
	v := values(args)
	progress, err := strconv.Atoi(v["PROGRESS"])
	if err != nil || progress < 0 || progress > 100 {
		return onions.Event{}, false
	}
	return onions.Event{Kind: onions.EventBootstrap, Progress: progress, Tag: keyword(v["TAG"]), Reason: keyword(v["REASON"])}, true
}

// keyword is s if it can be one of tor's words, of which only those that are known are shown.
func keyword(s string) string {
	if len(s) > 40 {
		return ""
	}
	return s
}

// values reads KEY=VALUE and KEY="VALUE WITH \"BLANKS\"". What is neither is skipped.
func values(s string) map[string]string {
	out := map[string]string{}
	for s != "" {
		s = strings.TrimLeft(s, " ")
		end := strings.IndexAny(s, " =")
		if end < 0 {
			break
		}
		key := s[:end]
		if s[end] == ' ' {
			s = s[end:]
			continue
		}
		s = s[end+1:]
		var value string
		if strings.HasPrefix(s, `"`) {
			value, s = quoted(s[1:])
		} else {
			value, s, _ = strings.Cut(s, " ")
		}
		out[key] = value
	}
	return out
}

// quoted is what comes before the closing quote, and the rest after it.
func quoted(s string) (value, rest string) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:]
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), ""
}

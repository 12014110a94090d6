package torcontrol

import (
	"bufio"
	"errors"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/broker/internal/app/onions"
	"github.com/shallot-net/shallot/broker/internal/domain/onionsvc"
)

const id = "5yy7qpeiu4jbtjx47g7obwu3yitcaweplik2mfcvknie36letzom76ad"

func TestParseEvent(t *testing.T) {
	for line, want := range map[string]onions.Event{
		"650 HS_DESC UPLOAD " + id + " UNKNOWN $AB~x desc HSDIR_INDEX=00": {Kind: onions.EventUpload, ServiceID: id},
		"650 HS_DESC UPLOADED " + id + " UNKNOWN $AB~x":                   {Kind: onions.EventUploaded, ServiceID: id},
		"650 HS_DESC UPLOADED " + id:                                      {Kind: onions.EventUploaded, ServiceID: id},
		"650 HS_DESC FAILED " + id + " NO_AUTH $AB~x REASON=X":            {},
		"650 HS_DESC UPLOADED 1.2.3.4 UNKNOWN":                            {},
		"650 NETWORK_LIVENESS UP":                                         {Kind: onions.EventLive, Up: true},
		"650 NETWORK_LIVENESS DOWN":                                       {Kind: onions.EventLive},
		"650 NETWORK_LIVENESS SIDEWAYS":                                   {},
		"650 STATUS_CLIENT NOTICE CIRCUIT_ESTABLISHED":                    {Kind: onions.EventCircuits, Up: true},
		"650 STATUS_CLIENT ERR CIRCUIT_NOT_ESTABLISHED REASON=DORMANT":    {Kind: onions.EventCircuits, Reason: "DORMANT"},
		"650 STATUS_CLIENT NOTICE ENOUGH_DIR_INFO":                        {Kind: onions.EventDirectory, Up: true},
		"650 STATUS_CLIENT NOTICE NOT_ENOUGH_DIR_INFO":                    {Kind: onions.EventDirectory},
		`650 STATUS_CLIENT WARN BOOTSTRAP PROGRESS=14 TAG=handshake SUMMARY="Handshaking \"x\" TAG=y" WARNING="a b" REASON=DONE COUNT=4`: {Kind: onions.EventBootstrap, Progress: 14, Tag: "handshake", Reason: "DONE"},
		"650 STATUS_CLIENT NOTICE BOOTSTRAP PROGRESS=101 TAG=x":                                                                          {},
		"650 STATUS_CLIENT NOTICE BOOTSTRAP PROGRESS=-1":                                                                                 {},
		"650 STATUS_CLIENT NOTICE BOOTSTRAP":                                                                                             {},
		"650 STATUS_GENERAL NOTICE X":                                                                                                    {},
		"650-NETWORK_LIVENESS UP":                                                                                                        {},
		"250 OK":                                                                                                                         {},
		"650 ":                                                                                                                           {},
		"":                                                                                                                               {},
	} {
		got, ok := parseEvent(line)
		if ok != (want.Kind != 0) || ok && got != want {
			t.Errorf("%q is %+v %t", line, got, ok)
		}
	}
}

func TestReadLine(t *testing.T) {
	long := strings.Repeat("x", 20000)
	r := bufio.NewReader(strings.NewReader("a\r\n" + long + "\r\nb\n" + strings.Repeat(long, 10)))
	for _, want := range []string{"a", "", "b"} {
		if got, err := readLine(r); got != want || err != nil {
			t.Errorf("%q %v", got, err)
		}
	}
	if _, err := readLine(r); !errors.Is(err, errTooMuch) {
		t.Errorf("a line without end: %v", err)
	}
}

func FuzzParseEvent(f *testing.F) {
	f.Add("650 HS_DESC UPLOADED " + id + " UNKNOWN $AB~x")
	f.Add(`650 STATUS_CLIENT WARN BOOTSTRAP PROGRESS=14 TAG=handshake SUMMARY="a \" b" REASON=DONE`)
	f.Add(`650 STATUS_CLIENT WARN BOOTSTRAP PROGRESS=1 a==" "\`)
	f.Add("650 NETWORK_LIVENESS UP")
	f.Fuzz(func(t *testing.T, line string) {
		e, ok := parseEvent(line)
		if !ok {
			return
		}
		if e.Kind == 0 || e.Progress < 0 || e.Progress > 100 || len(e.Tag) > 40 || len(e.Reason) > 40 {
			t.Errorf("%q is %+v", line, e)
		}
		if (e.Kind == onions.EventUpload || e.Kind == onions.EventUploaded) != (e.ServiceID != "") || e.ServiceID != "" && onionsvc.CheckID(e.ServiceID) != nil {
			t.Errorf("%q is %+v", line, e)
		}
	})
}

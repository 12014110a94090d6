package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/google/licenseclassifier/v2/assets"
)

// allowed are licences whose terms a list of names and texts meets. MPL-2.0 binds changed files only, and none is changed here.
var allowed = []string{"0BSD", "Apache-2.0", llvm, "BlueOak-1.0.0", "BSD-1-Clause", "BSD-2-Clause", "BSD-2-Clause-Views", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MIT-0", "MPL-2.0", "Unlicense", "Zlib"}

// llvm is Apache-2.0 with an exception that allows more.
const llvm = "Apache-2.0 WITH LLVM-exception"

// beside are what a text may hold along with one that is allowed: a word that takes nothing back.
var beside = []string{"LLVM-exception", "GooglePatentClause", "GooglePatentsFile", "CC-BY-4.0", "CC-BY-3.0", "CC-BY-SA-3.0"}

// decided is what a person has read in a text that offers a choice, or that no detector knows. With another text it counts no more.
type decided struct{ licence, sha256 string }

var decisions = map[string]decided{
	"github.com/jackpal/go-nat-pmp":                 {"Apache-2.0", "1596ea320a3d9e5180576b2c6dd28aa34b9edcef27693fcd0474e24bda3fdcab"},   // the notice alone
	"github.com/multiformats/go-base36":             {"MIT", "b5f1f21b1eea5d68df829130c545b431e9c277dd73f68a777e641e44c7fa2f0e"},          // or Apache-2.0
	"kernel.org/pub/linux/libs/security/libcap/psx": {"BSD-3-Clause", "279fa656c62857d42952b86a0789b98669ca1cb4b324a8d9e91397c174af4c14"}, // or GPL-2.0
}

// names of files that are a licence, or have to go along with one.
var (
	licenceFile = regexp.MustCompile(`(?i)^(licen[sc]e|copying|unlicense|patents)([-.].*)?$|^(.*[-.])licen[sc]e(\.(md|txt))?$`)
	noticeFile  = regexp.MustCompile(`(?i)^(notice|authors)([-.].*)?$`)
)

const (
	maxText = 1 << 20 // bytes of one file
	sure    = 0.9     // of a text that is taken for a licence
)

// read finds licences and notices at the root of the module's sources.
func (p *part) read() error {
	if p.dir == "" {
		return fmt.Errorf("%s %s: its sources are not found", p.path, p.version)
	}
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		licence := licenceFile.MatchString(e.Name())
		if !e.Type().IsRegular() || strings.HasSuffix(e.Name(), ".go") || !licence && !noticeFile.MatchString(e.Name()) {
			continue
		}
		info, err := e.Info()
		if err != nil || info.Size() > maxText {
			return fmt.Errorf("%s %s: %s cannot be read, or is larger than %d bytes: %w", p.path, p.version, e.Name(), maxText, err)
		}
		text, err := fs.ReadFile(os.DirFS(p.dir), e.Name())
		if err != nil {
			return err
		}
		p.texts = append(p.texts, document{filepath.Base(e.Name()), strings.TrimSpace(strings.ReplaceAll(string(text), "\r\n", "\n"))})
		if sum := sha256.Sum256(text); licence && decisions[p.path].sha256 == hex.EncodeToString(sum[:]) {
			p.licences = append(p.licences, decisions[p.path].licence)
		} else if licence {
			if err := p.detect(text); err != nil {
				return err
			}
		}
	}
	slices.Sort(p.licences)
	return nil
}

// texts knows the texts of licences; making it takes a second.
var texts = sync.OnceValues(assets.DefaultClassifier)

func (p *part) detect(text []byte) error {
	c, err := texts()
	if err != nil {
		return err
	}
	for _, m := range c.Match(text).Matches {
		name := m.Name
		if name == "Apache-with-LLVM-Exception" {
			name = llvm
		}
		if m.MatchType == "License" && m.Confidence >= sure && !slices.Contains(p.licences, name) {
			p.licences = append(p.licences, name)
		}
	}
	return nil
}

// judge wants one licence at least, and no text among them that is not allowed: where a module has several, all may bind.
func (p *part) judge() error {
	if len(p.licences) == 0 {
		return fmt.Errorf("%s %s: no licence is found; read it and add it to decisions, or do without the module", p.path, p.version)
	}
	fine := 0
	for _, l := range p.licences {
		switch {
		case slices.Contains(allowed, l):
			fine++
		case !slices.Contains(beside, l):
			return fmt.Errorf("%s %s is under %s, which is not among those allowed (%s)", p.path, p.version, l, strings.Join(allowed, ", "))
		}
	}
	if fine == 0 {
		return fmt.Errorf("%s %s is under %s alone, which is not allowed", p.path, p.version, strings.Join(p.licences, ", "))
	}
	return nil
}

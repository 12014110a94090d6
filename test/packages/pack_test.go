// Package packages tests what a release is made of: that one commit gives one set of files, what is in them, and that the Debian package installs, runs, upgrades and goes.
package packages

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/test/internal/release"
)

// programs are those of a release.
var programs = []string{"shallot", "shallot-broker", "shallot-discovery", "shallot-executor-wasm", "shallot-gateway", "shallot-metric", "shallot-node", "shallot-onion", "shallot-task"}

// manual is the page of a program: the command's is for everybody, those of processes are for who looks after a machine.
func manual(program string) string {
	if program == "shallot" {
		return "shallot.1"
	}
	return program + ".8"
}

// epoch is a moment that packages bear here.
const epoch = "1700000000"

// needDpkg leaves a test out where packages cannot be made.
func needDpkg(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		const what = "left out: packages, because dpkg-deb is missing (Debian has it; elsewhere it is in the package dpkg)"
		if os.Getenv("CI") == "true" {
			t.Fatal(what)
		}
		t.Skip(what)
	}
}

// script runs one of deploy/release, with further variables, and returns its stdout.
func script(t *testing.T, name string, env []string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(release.Top(t), "deploy", "release", name), args...)
	cmd.Env = append(append(os.Environ(), "SOURCE_DATE_EPOCH="+epoch, "MAKEFLAGS=", "MAKELEVEL="), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", name, err, out, stderr.String())
	}
	return string(out)
}

// small makes stand-ins for programs and papers, in an order and with times of their own.
func small(t *testing.T, order []string, at time.Time) (bin, papers string) {
	t.Helper()
	dir := t.TempDir()
	bin, papers = filepath.Join(dir, "bin"), filepath.Join(dir, "papers")
	write := func(path, text string, mode os.FileMode) {
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if err == nil {
			err = os.WriteFile(path, []byte(text), mode)
		}
		if err == nil {
			err = os.Chtimes(path, at, at)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range order {
		write(filepath.Join(bin, p), "#!/bin/sh\necho "+p+"\n", 0o700)
		write(filepath.Join(papers, "sbom", p+".cdx.json"), "{}\n", 0o600)
		write(filepath.Join(papers, "man", manual(p)), ".TH "+p+"\n", 0o600)
	}
	write(filepath.Join(papers, "sbom", "LICENCES.md"), "# Licences\n", 0o600)
	write(filepath.Join(papers, "completions", "bash-completion", "completions", "shallot"), "# bash\n", 0o600)
	write(filepath.Join(papers, "completions", "zsh", "site-functions", "_shallot"), "#compdef shallot\n", 0o600)
	write(filepath.Join(papers, "completions", "fish", "vendor_completions.d", "shallot.fish"), "# fish\n", 0o600)
	return bin, papers
}

func sums(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = fmt.Sprintf("%x", sha256.Sum256(data))
	}
	return out
}

// TestPackedTwiceIsTheSame: whoever packs, whenever, and in whatever order files were made.
func TestPackedTwiceIsTheSame(t *testing.T) {
	needDpkg(t)
	backwards := slices.Clone(programs)
	slices.Reverse(backwards)
	first, second := t.TempDir(), t.TempDir()
	bin, papers := small(t, programs, time.Unix(1600000000, 0))
	script(t, "pack.sh", []string{"TZ=Pacific/Auckland"}, bin, papers, "amd64", "v1.2.3", first)
	bin, papers = small(t, backwards, time.Unix(1650000000, 0))
	script(t, "pack.sh", []string{"TZ=America/Lima", "LC_ALL=C.UTF-8", "GZIP_OPT=-1", "DPKG_DEB_COMPRESSOR_TYPE=xz", "DPKG_DEB_THREADS_MAX=2"}, bin, papers, "amd64", "v1.2.3", second)
	a, b := sums(t, first), sums(t, second)
	if len(a) != 2 || a["shallot-v1.2.3-linux-amd64.tar.gz"] == "" || a["shallot_1.2.3_amd64.deb"] == "" {
		t.Errorf("packed were %v", a)
	}
	for name, sum := range a {
		if b[name] != sum {
			t.Errorf("%s is %s the first time and %s the second", name, sum, b[name])
		}
	}
	t.Run("archive", func(t *testing.T) { archive(t, filepath.Join(first, "shallot-v1.2.3-linux-amd64.tar.gz")) })
	t.Run("package", func(t *testing.T) { debian(t, filepath.Join(first, "shallot_1.2.3_amd64.deb")) })
}

// archive looks at every entry: it is of nobody here, and of the commit's moment.
func archive(t *testing.T, path string) {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := entries(t, z)
	if !slices.IsSorted(slices.DeleteFunc(names(files), func(n string) bool { return strings.HasSuffix(n, "/") })) {
		t.Error("the names are not sorted")
	}
	const top = "shallot-v1.2.3-linux-amd64/"
	for _, p := range programs {
		if files.mode(top+"bin/"+p) != 0o755 || files.mode(top+"share/man/man"+manual(p)[len(p)+1:]+"/"+manual(p)) != 0o644 {
			t.Errorf("%s or its page has not its mode, or is missing", p)
		}
	}
	for _, want := range []string{"lib/systemd/system/shallot.target", "lib/systemd/system/shallot-task.service", "lib/sysusers.d/shallot.conf", "lib/tmpfiles.d/shallot.conf",
		"share/doc/shallot/LICENSE", "share/doc/shallot/LICENCES.md", "share/doc/shallot/sbom/shallot-node.cdx.json", "share/doc/shallot/examples/shallot.env", "share/doc/shallot/docs/tutorial.md", "share/doc/shallot/docs/reference/cli.md", "share/doc/shallot/docs/demo.svg",
		"share/bash-completion/completions/shallot", "share/zsh/site-functions/_shallot", "share/fish/vendor_completions.d/shallot.fish"} {
		if files.mode(top+want) != 0o644 {
			t.Errorf("%s is missing, or has another mode than 0644", want)
		}
	}
}

type entry struct {
	*tar.Header
	data []byte
}

type listing []entry

func entries(t *testing.T, r io.Reader) (out listing) {
	t.Helper()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 1700000000 || (h.Uname != "" && h.Uname != "root") {
			t.Errorf("%s is of %d:%d (%s), %v", h.Name, h.Uid, h.Gid, h.Uname, h.ModTime.UTC())
		}
		out = append(out, entry{h, data})
	}
}

func names(l listing) (out []string) {
	for _, e := range l {
		out = append(out, e.Name)
	}
	return out
}

func (l listing) find(name string) entry {
	for _, e := range l {
		if e.Name == name {
			return e
		}
	}
	return entry{Header: &tar.Header{}}
}

func (l listing) mode(name string) int64 { return l.find(name).Mode & 0o777 }

// debian looks at the package: its fields, that units start programs that are in it, and that the one file which people change is kept.
func debian(t *testing.T, path string) {
	field := func(name string) string {
		out, err := exec.CommandContext(t.Context(), "dpkg-deb", "--field", path, name).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	for name, want := range map[string]string{"Package": "shallot", "Version": "1.2.3", "Architecture": "amd64"} {
		if got := field(name); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	data, err := exec.CommandContext(t.Context(), "dpkg-deb", "--fsys-tarfile", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	files := entries(t, bytes.NewReader(data))
	units, documented := 0, map[string][]string{}
	for _, e := range files {
		if strings.Contains(e.Name, "/local/") {
			t.Errorf("%s is not Debian's place", e.Name)
		}
		if !strings.HasSuffix(e.Name, ".service") || e.Typeflag != tar.TypeReg {
			continue
		}
		for line := range strings.Lines(string(e.data)) {
			for page := range strings.FieldsSeq(line) {
				if name, ok := strings.CutPrefix(strings.TrimPrefix(page, "Documentation="), "man:"); ok {
					name, section, _ := strings.Cut(strings.TrimSuffix(name, ")"), "(")
					documented[e.Name] = append(documented[e.Name], "./usr/share/man/man"+section+"/"+name+"."+section+".gz")
				}
			}
			if command, ok := strings.CutPrefix(line, "ExecStart="); ok {
				units++
				program := strings.Fields(command)[0]
				if files.mode("."+program) != 0o755 {
					t.Errorf("%s starts %s, which is not in the package", e.Name, program)
				}
			}
		}
	}
	if units < 8 {
		t.Errorf("only %d units", units)
	}
	if len(documented) < units {
		t.Errorf("of %d units only %d name a manual page", units, len(documented))
	}
	for unit, pages := range documented {
		for _, page := range pages {
			if !strings.Contains(page, "/man1/shallot-") && files.mode(page) != 0o644 { // those of the command's own commands are not among the stand-ins
				t.Errorf("%s names %s, which is not in the package", unit, page)
			}
		}
	}
	for _, e := range files {
		if e.Typeflag == tar.TypeSymlink && files.find("./"+filepath.Join(filepath.Dir(e.Name), e.Linkname)).Name == "" {
			t.Errorf("%s leads nowhere", e.Name)
		}
	}
	conffiles, err := exec.CommandContext(t.Context(), "dpkg-deb", "--info", path, "conffiles").Output()
	if err != nil || string(conffiles) != "/etc/shallot/shallot.env\n" || files.mode("./etc/shallot/shallot.env") != 0o640 {
		t.Errorf("the file of settings would not be kept, or could be read by all: %q, %v", conffiles, err)
	}
	for _, name := range []string{"postinst", "prerm", "postrm"} {
		text, err := exec.CommandContext(t.Context(), "dpkg-deb", "--info", path, name).Output()
		if err != nil {
			t.Fatal(err)
		}
		check := exec.CommandContext(t.Context(), "sh", "-n")
		check.Stdin = bytes.NewReader(text)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: %v, %s", name, err, out)
		}
	}
}

// TestVersionsGrow: what git calls commits one after the other is, as Debian compares them, one after the other.
func TestVersionsGrow(t *testing.T) {
	needDpkg(t)
	bin, papers := small(t, programs, time.Unix(1600000000, 0))
	var before string
	for _, v := range []string{"315a5d5e", "v0.0.0-20261127052143-315a5d5e0123", "v0.0.0-20261127052144-0123456789ab", "v0.9.0", "v1.0.0-rc1", "v1.0.0", "v1.0.0-7-gabcdef0", "v1.0.0-12-g0123456", "v1.0.0-12-g0123456-dirty", "v1.0.1"} {
		out := t.TempDir()
		script(t, "pack.sh", nil, bin, papers, "arm64", v, out)
		found, err := filepath.Glob(filepath.Join(out, "shallot_*_arm64.deb"))
		if err != nil || len(found) != 1 {
			t.Fatal(found, err)
		}
		version := strings.Split(filepath.Base(found[0]), "_")[1]
		if before != "" {
			if err := exec.CommandContext(t.Context(), "dpkg", "--compare-versions", before, "lt", version).Run(); err != nil {
				t.Errorf("%s does not come before %s (%s)", before, version, v)
			}
		}
		before = version
	}
}

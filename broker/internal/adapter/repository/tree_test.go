package repository

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	mdtest "github.com/ipfs/boxo/ipld/merkledag/test"
	"github.com/ipfs/boxo/ipld/unixfs"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/treepath"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
)

// entries of files, and of directories without any where the path ends with a slash, in the order of the paths.
func entriesOf(files map[string][]byte) func() (Entry, error) {
	paths := slices.Sorted(maps.Keys(files))
	return func() (Entry, error) {
		if len(paths) == 0 {
			return Entry{}, io.EOF
		}
		p := paths[0]
		paths = paths[1:]
		if dir, ok := strings.CutSuffix(p, "/"); ok {
			return Entry{Path: dir, Directory: true}, nil
		}
		return Entry{Path: p, Data: bytes.NewReader(files[p])}, nil
	}
}

func putTree(t testing.TB, s *Store, files map[string][]byte) string {
	t.Helper()
	c, size, err := s.PutDirectory(t.Context(), entriesOf(files), PinFor{Owner: "user"})
	if err != nil {
		t.Fatal(err)
	}
	want := uint64(0)
	for _, b := range files {
		want += uint64(len(b))
	}
	if size != want {
		t.Errorf("put says %d bytes of %d", size, want)
	}
	return c.String()
}

func list(t testing.TB, s *Store, c, path string, recursive bool, src Source) ([]Listed, error) {
	t.Helper()
	var out []Listed
	err := s.List(t.Context(), c, path, recursive, src, func(e Listed) error { out = append(out, e); return nil })
	return out, err
}

func someTree() map[string][]byte {
	files := map[string][]byte{"a.txt": []byte("a"), "empty": {}, "sub/deep/large": randomBytes(1, 3<<20+5), "sub/.hidden": []byte("h"), "sub/same": []byte("a"), "none/at all/": nil,
		"with ümläuts and  spaces": []byte("x")}
	for i := range 300 {
		files[fmt.Sprintf("many/%03d", i)] = randomBytes(uint64(i), i)
	}
	return files
}

func TestDirectoryComesBack(t *testing.T) {
	a, b, from := pair(t)
	files := someTree()
	c := putTree(t, a, files)
	for _, s := range []*Store{a, b} { // b has it from a
		got, err := list(t, s, c, "", true, from)
		if err != nil {
			t.Fatal(err)
		}
		found, dirs := 0, map[string]bool{"": true}
		for _, e := range got {
			dir := e.Path[:max(0, strings.LastIndex(e.Path, "/"))]
			if !dirs[dir] {
				t.Errorf("%s comes before its directory", e.Path)
			}
			if e.Kind == kindDirectory {
				dirs[e.Path] = true
				continue
			}
			found++
			if want := files[e.Path]; want == nil || uint64(len(want)) != e.Size {
				t.Errorf("%+v is not what was put", e)
			}
			mustGet(t, s, e.CID.String(), from, files[e.Path])
		}
		if found != len(files)-1 || !dirs["none/at all"] || !dirs["sub/deep"] {
			t.Errorf("%d files, directories %v", found, dirs)
		}
		if got, err := list(t, s, c, "sub", false, from); err != nil || len(got) != 3 || got[0].Path != ".hidden" || got[1].Kind != kindDirectory || got[1].Path != "deep" {
			t.Errorf("sub has %v, %v", got, err)
		}
		f, err := s.OpenPath(t.Context(), c, "sub/deep/large", from, 2<<20, 0)
		if err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(f); err != nil || !bytes.Equal(rest, files["sub/deep/large"][2<<20:]) {
			t.Errorf("%d bytes, %v", len(rest), err)
		}
		f.Close()
		if st, err := s.StatPath(t.Context(), c, "many", from); err != nil || st.Kind != kindDirectory || st.CID == c {
			t.Errorf("%+v, %v", st, err)
		}
		for path, reason := range map[string]string{"nothing": "PATH_NOT_FOUND", "a.txt/b": "PATH_NOT_FOUND", "sub/nothing/x": "PATH_NOT_FOUND", "../x": "PATH_INVALID", "/a.txt": "PATH_INVALID",
			"sub/": "PATH_INVALID", "sub": ReasonIsDirectory, "": ReasonIsDirectory} {
			if _, err := s.OpenPath(t.Context(), c, path, from, 0, 0); fault.From(err).Reason != reason {
				t.Errorf("%q: %v", path, err)
			}
		}
		if _, err := list(t, s, c, "a.txt", true, from); fault.From(err).Reason != "CONTENT_IS_NO_DIRECTORY" {
			t.Error(err)
		}
	}
	if st, err := a.Stat(t.Context(), c, Source{Local: true}); err != nil || !st.Local || len(st.Pins) != 1 {
		t.Errorf("%+v, %v", st, err)
	}
	collect(t, a, 3)
	if _, err := list(t, a, c, "", true, Source{Local: true}); err != nil {
		t.Errorf("a collection has taken some of it: %v", err)
	}
}

// The names are those that others give: boxo's own directories are laid out in the same way by the profile, also when they are more than a block.
func TestDirectoriesAreCalledAsOthersCallThem(t *testing.T) {
	for name, n := range map[string]int{"empty": 0, "one": 1, "nearly a block": 3100, "more than a block": 3300, "large": 20_000} {
		s := newStore(t)
		files := make(map[string][]byte, n)
		dag := mdtest.Mock()
		dir, err := uio.NewDirectory(dag, uio.WithCidBuilder(builder), uio.WithSizeEstimationMode(uio.SizeEstimationBlock))
		if err != nil {
			t.Fatal(err)
		}
		node, err := decode(mustParse(t, put(t, s, []byte("x"), "")), []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			file := fmt.Sprintf("a file with a name %08d", i)
			files[file] = []byte("x")
			if err := dir.AddChild(t.Context(), file, node); err != nil {
				t.Fatal(err)
			}
		}
		want, err := dir.GetNode()
		if err != nil {
			t.Fatal(err)
		}
		got := putTree(t, s, files)
		if got != want.Cid().String() {
			t.Errorf("%s: %s here, %s there", name, got, want.Cid())
		}
		all, err := list(t, s, got, "", false, Source{Local: true})
		if err != nil || len(all) != n {
			t.Errorf("%s: %d names, %v", name, len(all), err)
		}
		if n > 0 {
			if f, err := s.OpenPath(t.Context(), got, fmt.Sprintf("a file with a name %08d", n-1), Source{Local: true}, 0, 0); err != nil {
				t.Errorf("%s: %v", name, err)
			} else {
				f.Close()
			}
			if _, err := s.OpenPath(t.Context(), got, "no file", Source{Local: true}, 0, 0); fault.From(err).Reason != "PATH_NOT_FOUND" {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func dirWith(t testing.TB, data []byte, names []string, c cid.Cid) ipld.Node {
	t.Helper()
	n := unixfs.EmptyDirNode()
	if data != nil {
		n.SetData(data)
	}
	if err := n.SetCidBuilder(builder); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := n.AddRawLink(name, &ipld.Link{Size: 1, Cid: c}); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func TestHostileDirectories(t *testing.T) {
	s := newStore(t)
	leaf := mustParse(t, put(t, s, []byte("leaf"), ""))
	trie := func(bits byte, fanout uint64) []byte {
		b, err := unixfs.HAMTShardData([]byte{bits}, fanout, 0x22)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	link := unixfs.EmptyFileNode()
	data, err := unixfs.SymlinkData("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	link.SetData(data)
	if err := link.SetCidBuilder(builder); err != nil {
		t.Fatal(err)
	}
	symlink := mustParse(t, addNode(t, s, link))
	empty := mustParse(t, addNode(t, s, dirWith(t, trie(0, 256), nil, leaf)))
	for name, n := range map[string]ipld.Node{
		"up": dirWith(t, nil, []string{".."}, leaf), "itself": dirWith(t, nil, []string{"."}, leaf), "no name": dirWith(t, nil, []string{""}, leaf), "a path": dirWith(t, nil, []string{"a/b"}, leaf),
		"a way out": dirWith(t, nil, []string{"../../x"}, leaf), "absolute": dirWith(t, nil, []string{"/etc/passwd"}, leaf), "NUL": dirWith(t, nil, []string{"a\x00"}, leaf),
		"escape": dirWith(t, nil, []string{"\x1b[2J"}, leaf), "no text": dirWith(t, nil, []string{"\xff"}, leaf), "long": dirWith(t, nil, []string{strings.Repeat("n", 256)}, leaf),
		"twice": dirWith(t, nil, []string{"a", "a"}, leaf), "a short name in a trie": dirWith(t, trie(1, 256), []string{"0"}, leaf), "no part of a trie": dirWith(t, trie(1, 256), []string{"00"}, leaf),
		"the same part twice": dirWith(t, trie(3, 256), []string{"00", "01"}, empty), "a way out in a trie": dirWith(t, trie(1, 256), []string{"00../x"}, leaf),
		"a wide trie": dirWith(t, trie(1, 1<<20), []string{"00a"}, leaf), "a file in a trie": dirWith(t, trie(1, 256), []string{"00"}, symlink),
	} {
		c := addNode(t, s, n)
		if got, err := list(t, s, c, "", true, Source{Local: true}); err == nil || fault.From(err).Reason != ReasonMalformed {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	// A link is told of and never followed.
	c := addNode(t, s, dirWith(t, nil, []string{"l"}, symlink))
	if got, err := list(t, s, c, "", true, Source{Local: true}); err != nil || len(got) != 1 || got[0].Kind != kindOther {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := s.OpenPath(t.Context(), c, "l", Source{Local: true}, 0, 0); err == nil {
		t.Error("a link was read")
	}
	// Some few blocks are a tree without end.
	for range 40 {
		c = addNode(t, s, dirWith(t, nil, []string{"a", "b"}, mustParse(t, c)))
	}
	if _, err := list(t, s, c, "", true, Source{Local: true}); fault.From(err).Code != codes.ResourceExhausted {
		t.Error(err)
	}
	for range 40 {
		c = addNode(t, s, dirWith(t, nil, []string{"deeper"}, mustParse(t, c)))
	}
	if _, err := list(t, s, c, "", true, Source{Local: true}); fault.From(err).Reason != ReasonMalformed {
		t.Error(err)
	}
}

func TestPutDirectoryRefuses(t *testing.T) {
	s := newStore(t)
	one := func(paths ...string) func() (Entry, error) {
		return func() (Entry, error) {
			if len(paths) == 0 {
				return Entry{}, io.EOF
			}
			p := paths[0]
			paths = paths[1:]
			return Entry{Path: p, Data: strings.NewReader("x")}, nil
		}
	}
	broken := errors.New("broken")
	n := 0
	for name, next := range map[string]func() (Entry, error){
		"up": one("a", "../b"), "twice": one("a", "a"), "a file and a directory": one("a", "a/b"), "a directory and a file": one("a/b", "a"), "deep": one(strings.Repeat("d/", treepath.MaxDepth) + "f"),
		"broken": func() (Entry, error) { return Entry{}, broken },
		"many":   func() (Entry, error) { n++; return Entry{Path: fmt.Sprint(n), Directory: true}, nil },
	} {
		if c, _, err := s.PutDirectory(t.Context(), next, PinFor{Owner: "user"}); err == nil {
			t.Errorf("%s: %s", name, c)
		}
	}
	if pins, _, err := s.Pins("", "", 10); err != nil || len(pins) != 0 {
		t.Errorf("%v is pinned, %v", pins, err)
	}
}

func TestServerPutsDirectories(t *testing.T) {
	s := newStore(t)
	c := serve(t, s)
	data := func(b string) *brokerv1.PutRequest {
		return &brokerv1.PutRequest{Request: &brokerv1.PutRequest_Data{Data: []byte(b)}}
	}
	entry := func(p string, dir bool) *brokerv1.PutRequest {
		return &brokerv1.PutRequest{Request: &brokerv1.PutRequest_Entry{Entry: &brokerv1.PutEntry{Path: p, Directory: dir}}}
	}
	send := func(directory bool, reqs ...*brokerv1.PutRequest) (*brokerv1.PutResponse, error) {
		stream, err := c.Put(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&brokerv1.PutRequest{Request: &brokerv1.PutRequest_Options{Options: &brokerv1.PutOptions{Directory: directory, Pin: &brokerv1.PinOptions{Owner: "user"}}}})
		for _, r := range reqs {
			_ = stream.Send(r) // an error is told by the end of the call
		}
		return stream.CloseAndRecv()
	}
	r, err := send(true, entry("a", false), data("12"), data("3"), entry("b/c", false), entry("e/f", true), entry("g", false), data(""))
	if err != nil || r.GetSize() != 3 {
		t.Fatal(r, err)
	}
	if want := putTree(t, s, map[string][]byte{"a": []byte("123"), "b/c": {}, "e/f/": nil, "g": {}}); r.GetCid() != want {
		t.Errorf("%s, not %s", r.GetCid(), want)
	}
	if _, got, err := rpcGet(t.Context(), c, &brokerv1.GetRequest{Cid: r.GetCid(), Path: "a", Offset: 1}); err != nil || string(got) != "23" {
		t.Errorf("%q, %v", got, err)
	}
	l, err := c.List(t.Context(), &brokerv1.ListRequest{Cid: r.GetCid(), Recursive: true})
	if err != nil {
		t.Fatal(err)
	}
	m, err := l.Recv()
	if err != nil || len(m.GetEntries()) != 6 || m.GetEntries()[0].GetSize() != 3 || m.GetEntries()[4].GetPath() != "e/f" || m.GetEntries()[4].GetKind() != kindDirectory {
		t.Errorf("%v, %v", m, err)
	}
	if st, err := c.Stat(t.Context(), &brokerv1.StatRequest{Cid: r.GetCid(), Path: "b"}); err != nil || st.GetKind() != kindDirectory {
		t.Errorf("%v, %v", st, err)
	}
	if r, err := send(true); err != nil || r.GetCid() != "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354" { // the one empty directory
		t.Errorf("%v, %v", r, err)
	}
	for name, bad := range map[string][]*brokerv1.PutRequest{
		"data of nothing": {data("x")}, "data of an empty directory": {entry("a", true), data("x")}, "options again": {{Request: &brokerv1.PutRequest_Options{}}}, "up": {entry("../a", false)},
	} {
		if r, err := send(true, bad...); fault.From(err).Code != codes.InvalidArgument {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	if r, err := send(false, data("x"), entry("a", false)); fault.From(err).Code != codes.InvalidArgument {
		t.Errorf("%v, %v", r, err)
	}
}

// FuzzDirectory lists a block that a peer made, and looks a name up in it.
func FuzzDirectory(f *testing.F) {
	s := newStore(f)
	leaf := mustParse(f, put(f, s, []byte("leaf"), ""))
	shard, err := unixfs.HAMTShardData([]byte{3}, 256, 0x22)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(dirWith(f, nil, []string{"a", "b/c", ".."}, leaf).RawData())
	f.Add(dirWith(f, shard, []string{"00a", "01"}, leaf).RawData())
	f.Add(unixfs.EmptyDirNode().RawData())
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		cids, err := s.PutMany([]Small{{Data: data}})
		if err != nil {
			t.Fatal(err)
		}
		c := cid.NewCidV1(cid.DagProtobuf, cids[0].Hash()).String()
		all, err := list(t, s, c, "", true, Source{Local: true})
		for _, e := range all {
			if treepath.Check(e.Path) != nil {
				t.Fatalf("%q is listed, %v", e.Path, err)
			}
			if e.Kind == kindOther {
				continue
			}
			if _, ferr := s.StatPath(t.Context(), c, e.Path, Source{Local: true}); err == nil && ferr != nil && fault.From(ferr).Reason == fault.ReasonInternal {
				t.Fatalf("%q: %v", e.Path, ferr)
			}
		}
		_, _ = s.StatPath(t.Context(), c, "a", Source{Local: true})
	})
}

func TestPinsOfAKind(t *testing.T) {
	s := newStore(t)
	c := serve(t, s)
	want := map[string]uint64{}
	for i := range 30 {
		owner := fmt.Sprintf("%s:%d", []string{"task", "payload", "share"}[i%3], i)
		n := i * 100_000 // some are a raw block, some are more
		put(t, s, randomBytes(uint64(i), n), owner)
		if i%3 == 0 {
			want[owner] = uint64(n)
		}
	}
	tree := putTree(t, s, map[string][]byte{"a": randomBytes(1, 2<<20), "b/c": randomBytes(2, 1000)})
	page := func(owner string) (owners map[string]uint64, pages int) {
		owners = map[string]uint64{}
		req := &brokerv1.ListPinsRequest{Owner: owner, PageSize: 3, Sizes: true}
		for {
			r, err := c.ListPins(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			pages++
			for _, p := range r.GetPins() {
				owners[p.GetOwner()] = p.GetSize()
			}
			if len(r.GetPins()) == 0 && r.GetNextPageToken() != "" {
				t.Error("a page in the middle is empty")
			}
			if req.PageToken = r.GetNextPageToken(); req.PageToken == "" {
				return owners, pages
			}
		}
	}
	if got, _ := page("task:"); !maps.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
	if got, _ := page("user"); len(got) != 1 || got["user"] < 2<<20+1000 || got["user"] > 2<<20+2000 {
		t.Errorf("%s has %v", tree, got)
	}
	if got, pages := page(""); len(got) != 31 || pages < 10 {
		t.Errorf("%d owners on %d pages", len(got), pages)
	}
	if got, _ := page("nobody:"); len(got) != 0 {
		t.Error(got)
	}
}

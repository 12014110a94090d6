package floor

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"filippo.io/age"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/shallot-net/shallot/test/internal/module"
)

// ChildArg is the first argument with which a program that uses Start calls itself; the others are Child's.
const ChildArg = "floor-child"

// Child runs one of the six servers until its stdin closes: broker, node or task of the provider (p) or the consumer (c), or the other
// host of Events.
// It prints one line when it is ready. express: the provider commits a task that ends at once together with its result.
func Child(role, dir, arg string, express bool) {
	switch role {
	case "broker_p", "broker_c":
		runBroker(dir, role, arg)
	case "task_p":
		runTaskP(dir, express)
	case "task_c":
		runTaskC(dir)
	case "node_p":
		runNodeP(dir)
	case "node_c":
		runNodeC(dir, arg)
	case "events":
		size, err := strconv.Atoi(arg)
		must(err)
		runEvents(size)
	default:
		panic("no role " + role)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func say(line string) { fmt.Println(line) }

// runNodeP passes what comes from the network to task, and what task has to say back. The first answer to the broker is the
// acknowledgement; the result is an event of its own.
func runNodeP(dir string) {
	var brk, task *link
	task = dial(dir, "task_p", func(result []byte) []byte { return brk.ask(result) })
	brk = dial(dir, "broker_p", func(event []byte) []byte { return task.ask(event) })
	brk.ask([]byte{iAmNode})
	say("ready")
}

// runNodeC serves the client: a stream per task, the payload in, the result out.
func runNodeC(dir, recipient string) {
	provider, err := age.ParseHybridRecipient(recipient)
	must(err)
	var waiting sync.Map
	task := dial(dir, "task_c", nil)
	brk := dial(dir, "broker_c", func(event []byte) []byte {
		done := task.ask(pack([]byte{'R'}, event))
		f := unpack(done)
		w, _ := waiting.LoadAndDelete(string(f[0]))
		w.(chan []byte) <- f[1]
		return nil
	})
	brk.ask([]byte{iAmNode})
	listen(dir, "node_c", func(s rawStream) {
		var payload []byte
		must(s.RecvMsg(&payload))
		created := unpack(task.ask(pack([]byte{'C'}, payload)))
		id, key := created[0], created[1]
		w := make(chan []byte, 1)
		waiting.Store(string(id), w)
		sealed := seal(provider, payload)
		go brk.ask(pack(id, key, sealed))
		result := <-w
		must(s.SendMsg(&result))
	})
	say("ready")
}

func runTaskC(dir string) {
	st := openStore(filepath.Join(dir, "task_c.db"))
	insert, finish := st.prepare("INSERT INTO task(id, secret, payload) VALUES(?, ?, ?)"), st.prepare("UPDATE task SET result = ? WHERE id = ?")
	var keys sync.Map
	create := func(payload []byte) []byte {
		key, err := age.GenerateHybridIdentity()
		must(err)
		id := make([]byte, 16)
		_, _ = rand.Read(id)
		st.commit(insert, id, key.String(), payload)
		keys.Store(string(id), key)
		return pack(id, []byte(key.Recipient().String()))
	}
	finished := func(event []byte) []byte {
		f := unpack(event)
		key, _ := keys.LoadAndDelete(string(f[0]))
		result := openSealed(key.(age.Identity), f[1])
		st.commit(finish, result, f[0])
		return pack(f[0], result)
	}
	listen(dir, "task_c", func(s rawStream) {
		newLink(func(b []byte) []byte {
			if f := unpack(b); f[0][0] == 'C' {
				return create(f[1])
			} else {
				return finished(f[1])
			}
		}).run(s)
	})
	say("ready")
}

func runTaskP(dir string, express bool) {
	st := openStore(filepath.Join(dir, "task_p.db"))
	insert := st.prepare("INSERT INTO task(id, secret, payload) VALUES(?, ?, ?)")
	update := st.prepare("UPDATE task SET result = ? WHERE id = ?")
	both := st.prepare("INSERT INTO task(id, secret, payload, result) VALUES(?, ?, ?, ?)")
	id, err := age.GenerateHybridIdentity()
	must(err)
	brk := dial(dir, "broker_p", nil)
	execute := executor()
	listen(dir, "task_p", func(s rawStream) {
		var l *link
		l = newLink(func(event []byte) []byte {
			f := unpack(event)
			payload := openSealed(id, f[2])
			if !express {
				st.commit(insert, f[0], f[1], payload)
			}
			work := func() {
				recipient, err := age.ParseHybridRecipient(string(f[1]))
				must(err)
				sealed := seal(recipient, execute(payload))
				put := make(chan struct{})
				go func() { brk.ask(append([]byte{putBlock}, sealed...)); close(put) }()
				if express {
					st.commit(both, f[0], f[1], payload, sealed)
				} else {
					st.commit(update, sealed, f[0])
				}
				<-put
				l.ask(pack(f[0], sealed))
			}
			if express {
				work()
			} else {
				go work()
			}
			return nil
		})
		l.run(s)
	})
	say(id.Recipient().String())
}

func seal(to age.Recipient, b []byte) []byte {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	must(err)
	_, err = w.Write(b)
	must(err)
	must(w.Close())
	return out.Bytes()
}

func openSealed(id age.Identity, b []byte) []byte {
	r, err := age.Decrypt(bytes.NewReader(b), id)
	must(err)
	out, err := io.ReadAll(r)
	must(err)
	return out
}

// executor runs payloads: words to add, or a module behind a zero byte.
func executor() func([]byte) []byte {
	ctx := context.Background()
	rt := wazero.NewRuntime(ctx)
	wasi_snapshot_preview1.MustInstantiate(ctx, rt)
	compiled, err := rt.CompileModule(ctx, module.Small())
	must(err)
	return func(payload []byte) []byte {
		words, body, isWasm := bytes.Cut(payload, []byte{0})
		if isWasm {
			_ = sha256.Sum256(body) // the key of a module cache
			var out bytes.Buffer
			m, err := rt.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName("").WithStdout(&out))
			must(err)
			must(m.Close(ctx))
			return out.Bytes()
		}
		sum := 0
		for _, w := range strings.Fields(string(words)) {
			n, err := strconv.Atoi(w)
			must(err)
			sum += n
		}
		return fmt.Appendln(nil, sum)
	}
}

// blocks are appended to one file, not synced: what is committed holds them too.
type blocks struct {
	mu  sync.Mutex
	log *os.File
}

func (b *blocks) put(data []byte) []byte {
	sum := sha256.Sum256(data)
	b.mu.Lock()
	defer b.mu.Unlock()
	_, err := b.log.Write(append(binary.BigEndian.AppendUint32(sum[:], uint32(len(data))), data...))
	must(err)
	return sum[:]
}

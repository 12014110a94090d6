package top

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/shallot-net/shallot/cli/internal/render"
)

// every is how often the node is looked at.
const every = time.Second

// Config is what Live needs.
type Config struct {
	Asker Asker
	In    io.Reader // a terminal
	Out   io.Writer
	Env   []string
	Now   func() time.Time
	Paint func(c render.Colour, s string) string
}

// looked is the outcome of one look.
type looked struct {
	snapshot *Snapshot
	err      error
}

type due struct{}

// model is the screen's state. Only Update changes it, on one goroutine.
type model struct {
	ctx    context.Context
	cfg    Config
	screen Screen
	now    *Snapshot
}

// Live shows the node until ctx ends or the user quits. A node that goes away is waited for.
func Live(ctx context.Context, cfg Config) error {
	m := &model{ctx: ctx, cfg: cfg, screen: Screen{Width: 80, Height: 24, Paint: cfg.Paint, Keys: true, Now: cfg.Now()}}
	_, err := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(cfg.In), tea.WithOutput(cfg.Out), tea.WithEnvironment(cfg.Env), tea.WithoutSignalHandler()).Run()
	if errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Init looks at once.
func (m *model) Init() tea.Cmd { return m.look }

func (m *model) look() tea.Msg {
	s, err := Look(m.ctx, m.cfg.Asker, m.cfg.Now)
	return looked{s, err}
}

// Update takes a key, a new size, or a look.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.screen.Width, m.screen.Height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return m, m.key(msg.String())
	case due:
		return m, m.look
	case looked:
		m.took(msg)
		return m, tea.Tick(every, func(time.Time) tea.Msg { return due{} })
	}
	return m, nil
}

func (m *model) took(l looked) {
	m.screen.Now = m.cfg.Now()
	switch {
	case l.err == nil:
		m.screen.Away, m.screen.Before, m.now = nil, m.now, l.snapshot
	case m.screen.Away == nil:
		m.screen.Away, m.screen.AwaySince = l.err, m.screen.Now
	default:
		m.screen.Away = l.err
	}
}

func (m *model) key(key string) tea.Cmd {
	page := max(m.screen.Height/2, 1)
	move := func(by int) {
		last := 0
		if m.now != nil {
			last = max(len(m.now.Tasks)-1, 0)
		}
		m.screen.Scroll = min(max(m.screen.Scroll+by, 0), last)
	}
	switch key {
	case "q", "ctrl+c", "esc":
		return tea.Quit
	case "s":
		m.screen.Order = (m.screen.Order + 1) % len(orders)
	case "up", "k":
		move(-1)
	case "down", "j":
		move(1)
	case "pgup":
		move(-page)
	case "pgdown":
		move(page)
	case "home":
		m.screen.Scroll = 0
	}
	return nil
}

// View is the whole screen.
func (m *model) View() tea.View {
	v := tea.NewView(strings.Join(Frame(m.now, &m.screen), "\n"))
	v.AltScreen = true
	return v
}

package kubevirtcel

import (
	"os"
	"strings"
	"testing"

	"libvirt.org/go/libvirtxml"

	v1 "holdfast.dev/tests/kubevirt-cel/v1"
)

const (
	shipped = "../../charts/holdfast/files/kubevirt-plugin-spec.yaml"
	// The same domains that the hook sidecar is tested with.
	firstCall  = "../../kubevirt/tests/xml/first-call.xml"
	secondCall = "../../kubevirt/tests/xml/second-call.xml"
	key        = "holdfast.dev/volumes"
)

func plugin(t *testing.T) Spec {
	t.Helper()
	spec, err := Read(shipped)
	if err != nil {
		t.Fatal(err)
	}
	if len(spec.DomainHooks) != 1 {
		t.Fatalf("%d hooks instead of one", len(spec.DomainHooks))
	}
	return spec
}

func file(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func machine(annotations map[string]string) *v1.VirtualMachineInstance {
	vmi := &v1.VirtualMachineInstance{}
	vmi.Annotations = annotations
	for _, name := range []string{"root", "data", "data-2", "cloudinit"} {
		vmi.Status.VolumeStatus = append(vmi.Status.VolumeStatus, v1.VolumeStatus{Name: name})
	}
	return vmi
}

func parse(t *testing.T, xml string) *libvirtxml.Domain {
	t.Helper()
	domain := &libvirtxml.Domain{}
	if err := domain.Unmarshal(xml); err != nil {
		t.Fatal(err)
	}
	return domain
}

// rewrite is one call of the hook: what libvirt gets afterwards.
func rewrite(t *testing.T, volumes, xml string) *libvirtxml.Domain {
	t.Helper()
	domain := parse(t, xml)
	if err := plugin(t).Apply(machine(map[string]string{key: volumes}), domain); err != nil {
		t.Fatal(err)
	}
	return domain
}

func text(t *testing.T, domain *libvirtxml.Domain) string {
	t.Helper()
	xml, err := domain.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return xml
}

func disk(t *testing.T, domain *libvirtxml.Domain, volume string) *libvirtxml.DomainDisk {
	t.Helper()
	for at := range domain.Devices.Disks {
		if each := &domain.Devices.Disks[at]; each.Alias != nil && each.Alias.Name == "ua-"+volume {
			return each
		}
	}
	t.Fatalf("there is no disk of %s", volume)
	return nil
}

func diskText(t *testing.T, domain *libvirtxml.Domain, volume string) string {
	t.Helper()
	xml, err := disk(t, domain, volume).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return xml
}

func wantParts(t *testing.T, xml string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(xml, part) {
			t.Errorf("%s is missing in\n%s", part, xml)
		}
	}
}

func wantWithout(t *testing.T, xml string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(xml, part) {
			t.Errorf("%s is still in\n%s", part, xml)
		}
	}
}

func TestConditionNeverFailsAndHoldsOnlyForAnnotatedMachines(t *testing.T) {
	cases := []struct {
		annotations map[string]string
		want        bool
	}{
		{nil, false},
		{map[string]string{}, false},
		{map[string]string{"other": "data"}, false},
		{map[string]string{key: ""}, true},
		{map[string]string{key: "data"}, true},
	}
	for _, c := range cases {
		for _, vmi := range []*v1.VirtualMachineInstance{machine(c.annotations), {ObjectMeta: v1.ObjectMeta{Annotations: c.annotations}}} {
			value, err := evaluate(plugin(t).Condition, vmi, &libvirtxml.Domain{})
			if err != nil || value.Value() != c.want {
				t.Errorf("%v: %v, %v", c.annotations, value, err)
			}
		}
	}
}

func TestMachineWithoutTheAnnotationIsNotTouched(t *testing.T) {
	domain := parse(t, file(t, firstCall))
	if err := plugin(t).Apply(machine(nil), domain); err != nil {
		t.Fatal(err)
	}
	if was, is := text(t, parse(t, file(t, firstCall))), text(t, domain); was != is {
		t.Errorf("was\n%s\nis\n%s", was, is)
	}
}

func TestFirstCallPutsTheDiskOnItsSocket(t *testing.T) {
	domain := rewrite(t, "data", file(t, firstCall))
	xml := diskText(t, domain, "data")
	wantParts(t, xml,
		`<disk type="vhostuser" device="disk" snapshot="no" model="virtio-non-transitional">`,
		`<driver name="qemu" type="raw" queues="4">`,
		`<source type="unix" path="/var/run/kubevirt-private/vmi-disks/data/v.sock">`,
		`<reconnect enabled="yes" timeout="1">`,
		`<target dev="vdb" bus="virtio">`, `<boot order="2">`, `<alias name="ua-data">`)
	wantWithout(t, xml, "serial", "cache", "error_policy", "discard", "iothread", "disk.img", "address")
}

func TestHugePagesAreKeptAndMemoryIsShared(t *testing.T) {
	xml := text(t, rewrite(t, "data", file(t, firstCall)))
	wantParts(t, xml, "<hugepages>", `<source type="memfd">`, `<access mode="shared">`)
	plain := strings.NewReplacer("<hugepages></hugepages>", "", "memoryBacking", "x").Replace(file(t, firstCall))
	wantParts(t, text(t, rewrite(t, "data", plain)), `<source type="memfd">`, `<access mode="shared">`)
}

func TestSecondCallRebuildsWhatWasStrippedAndKeepsTheAddress(t *testing.T) {
	domain := rewrite(t, "root,data", file(t, secondCall))
	for _, volume := range []string{"root", "data"} {
		wantParts(t, diskText(t, domain, volume), "vmi-disks/"+volume+"/v.sock", `<reconnect enabled="yes" timeout="1">`)
	}
	wantParts(t, diskText(t, domain, "data"), `<address type="pci" domain="0x0000" bus="0x08"`, `<boot order="2">`)
	wantParts(t, text(t, domain), `<access mode="shared">`)
}

func TestRewritingItsOwnWordsChangesNothing(t *testing.T) {
	for _, path := range []string{firstCall, secondCall} {
		once := text(t, rewrite(t, "root,data", file(t, path)))
		if twice := text(t, rewrite(t, "root,data", once)); twice != once {
			t.Errorf("once:\n%s\ntwice:\n%s", once, twice)
		}
	}
}

func TestDiskWithoutBootOrderGetsNone(t *testing.T) {
	domain := rewrite(t, "data", strings.Replace(file(t, firstCall), `<boot order="2"></boot>`, "", 1))
	if boot := disk(t, domain, "data").Boot; boot != nil {
		t.Errorf("boot order %d", boot.Order)
	}
}

func TestOtherDisksStayAsTheyWere(t *testing.T) {
	before, after := parse(t, file(t, firstCall)), rewrite(t, "data", file(t, firstCall))
	for _, volume := range []string{"root", "cloudinit"} {
		if was, is := diskText(t, before, volume), diskText(t, after, volume); was != is {
			t.Errorf("was\n%s\nis\n%s", was, is)
		}
	}
}

func TestQueuesAreKeptUpToWhatTheServerOffers(t *testing.T) {
	queues := func(old, new string) uint {
		xml := strings.Replace(file(t, firstCall), old, new, 1)
		return *disk(t, rewrite(t, "data", xml), "data").Driver.Queues
	}
	asked := `<serial>chosen-by-the-user</serial>
			<driver cache="none"`
	for want, got := range map[uint]uint{
		1:  queues(`static">4<`, `static">1<`),
		16: queues(`static">4<`, `static">200<`),
		3:  queues(asked, `<driver queues="3"`),
	} {
		if want != got {
			t.Errorf("%d queues instead of %d", got, want)
		}
	}
	if got := queues(asked, `<driver queues="64"`); got != 16 {
		t.Errorf("%d queues instead of 16", got)
	}
}

// What a socket cannot serve stays on the placeholder, which nobody can open: the machine does not start.
func TestDiskThatASocketCannotBeStaysOnThePlaceholder(t *testing.T) {
	for _, change := range [][2]string{
		{`bus="virtio" dev="vdb"`, `bus="sata" dev="sda"`},
		{`<boot order="2"></boot>`, `<readonly></readonly>`},
		{`<boot order="2"></boot>`, `<shareable></shareable>`},
		{`vmi-disks/data/disk.img`, `vmi-disks/other/disk.img`},
		{`<alias name="ua-data"></alias>`, `<alias name="ua-data-1"></alias>`},
	} {
		xml := strings.Replace(file(t, firstCall), change[0], change[1], 1)
		wantWithout(t, text(t, rewrite(t, "data", xml)), "v.sock")
	}
}

// The list is matched name by name: one that is part of another is not meant.
func TestNameThatIsPartOfAnotherIsNotMeant(t *testing.T) {
	for _, volumes := range []string{"data-2", "2-data", "", "dat", "data data"} {
		wantWithout(t, text(t, rewrite(t, volumes, file(t, firstCall))), "v.sock")
	}
}

// KubeVirt runs it again and again, so a disk without an alias or a source may not make it fail.
func TestDiskWithoutAliasIsLeftAlone(t *testing.T) {
	xml := strings.Replace(file(t, firstCall), `<alias name="ua-cloudinit"></alias>`, "", 1)
	xml = strings.Replace(xml, "</devices>", `<disk type="block" device="cdrom"></disk></devices>`, 1)
	wantParts(t, text(t, rewrite(t, "data", xml)), "vmi-disks/data/v.sock", "noCloud.iso")
}

func TestTwentyDisksStayWithinTheCost(t *testing.T) {
	disks := file(t, firstCall)
	start, end := strings.Index(disks, "<disk "), strings.LastIndex(disks, "</disk>")+len("</disk>")
	many := disks[:start] + strings.Repeat(disks[start:end], 20) + disks[end:]
	if got := strings.Count(text(t, rewrite(t, "root,data", many)), "v.sock"); got != 40 {
		t.Errorf("%d sockets instead of 40", got)
	}
}

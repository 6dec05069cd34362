// SPDX-License-Identifier: GPL-2.0
/*
 * gpio-dhtsim: a GPIO chip for tests, with a one-wire sensor of the DHT family on one of its lines.
 *
 * Test-only: it is built by tests/hardware/run for a virtual machine and is in no image.
 *
 * Every line has a pull-up, so an input that nobody pulls reads 1. The outside world pulls lines through
 * the attribute "pull". On the sensor's line the chip measures how long the host holds it low; when that
 * was long enough for a start signal, it plays "wave_ns": durations in ns, alternately released and pulled
 * low, beginning with the time that the sensor waits after the host's release.
 *
 * A real sensor costs the host's processor nothing. So the level is worked out when somebody looks; only while
 * the line's interrupt is on does a timer play the same waveform, because somebody has to raise it.
 *
 * Interrupts are edge-triggered like those of bcm2835 and sunxi; irqs=0 makes a bank that has none.
 */
#include <linux/gpio/driver.h>
#include <linux/gpio/machine.h>
#include <linux/hrtimer.h>
#include <linux/interrupt.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/spinlock.h>

#define LINES_MAX 64
#define WAVE_MAX 512

static char *label = "gpio-dhtsim";
module_param(label, charp, 0444);
static unsigned int nlines = 32;
module_param(nlines, uint, 0444);
static unsigned int sensor_line = 4;
module_param(sensor_line, uint, 0444);
static unsigned int start_min_us = 800;
module_param(start_min_us, uint, 0644);
static bool irqs = true;
module_param(irqs, bool, 0444);
static bool iio;
module_param(iio, bool, 0444);
MODULE_PARM_DESC(iio, "bind the kernel's own dht11 driver to the sensor's line");

struct sim_line {
	bool output;
	bool value;		/* what the host drives, if it does */
	bool pulled_low;	/* by the outside world */
	bool irq_on;
	unsigned int irq_type;
};

struct sim {
	struct gpio_chip chip;
	raw_spinlock_t lock;
	struct sim_line line[LINES_MAX];

	struct hrtimer timer;
	u32 wave[WAVE_MAX];
	unsigned int wave_len, wave_at;
	bool playing;
	ktime_t wave_due;	/* when the present entry ends */

	bool held;		/* the host holds the sensor's line low */
	ktime_t held_since;
	u64 held_ns, starts, short_starts;
};

static struct sim sim;
static struct platform_device *chip_device, *dht11_device;

static void step(void)
{
	if (++sim.wave_at < sim.wave_len)
		sim.wave_due = ktime_add_ns(sim.wave_due, sim.wave[sim.wave_at]);
	else
		sim.playing = false;
}

/* Where the waveform is by now, when no timer steps through it. */
static void catch_up(ktime_t now)
{
	if (sim.line[sensor_line].irq_on)
		return;
	while (sim.playing && ktime_compare(now, sim.wave_due) >= 0)
		step();
}

static bool host_pulls(const struct sim_line *line)
{
	return line->output && !line->value;
}

static int level_of(const struct sim_line *line)
{
	if (line->output && line->value)
		return 1;
	if (line == &sim.line[sensor_line] && sim.playing && sim.wave_at & 1)
		return 0;
	return !host_pulls(line) && !line->pulled_low;
}

static bool fires(const struct sim_line *line, int before)
{
	int after = level_of(line);

	if (before == after || !line->irq_on)
		return false;
	return line->irq_type & (after ? IRQ_TYPE_EDGE_RISING : IRQ_TYPE_EDGE_FALLING);
}

/* Called with the lock held. */
static void play_if_heard(void)
{
	if (sim.playing && sim.line[sensor_line].irq_on)
		hrtimer_start(&sim.timer, sim.wave_due, HRTIMER_MODE_ABS);
}

/* Called with the lock held, after the host changed the sensor's line. */
static void watch_start_signal(void)
{
	ktime_t now = ktime_get();
	bool held = host_pulls(&sim.line[sensor_line]);

	catch_up(now);
	if (held && !sim.held)
		sim.held_since = now;
	if (!held && sim.held) {
		sim.held_ns = ktime_to_ns(ktime_sub(now, sim.held_since));
		if (sim.held_ns < (u64)start_min_us * NSEC_PER_USEC) {
			sim.short_starts++;
		} else {
			sim.starts++;
			if (sim.wave_len && !sim.playing) {
				sim.wave_at = 0;
				sim.wave_due = ktime_add_ns(now, sim.wave[0]);
				sim.playing = true;
				play_if_heard();
			}
		}
	}
	sim.held = held;
}

static enum hrtimer_restart play(struct hrtimer *timer)
{
	struct sim_line *line = &sim.line[sensor_line];
	enum hrtimer_restart again = HRTIMER_NORESTART;
	unsigned long flags;
	bool fire;
	int before;

	raw_spin_lock_irqsave(&sim.lock, flags);
	before = level_of(line);
	if (sim.playing)
		step();
	if (sim.playing && line->irq_on) {
		hrtimer_set_expires(timer, sim.wave_due);
		again = HRTIMER_RESTART;
	}
	fire = fires(line, before);
	raw_spin_unlock_irqrestore(&sim.lock, flags);
	if (fire)
		generic_handle_domain_irq(sim.chip.irq.domain, sensor_line);
	return again;
}

static int chip_direction(struct gpio_chip *chip, unsigned int offset)
{
	return sim.line[offset].output ? GPIO_LINE_DIRECTION_OUT : GPIO_LINE_DIRECTION_IN;
}

static void drive(unsigned int offset, bool output, bool value)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&sim.lock, flags);
	sim.line[offset].output = output;
	sim.line[offset].value = value;
	if (offset == sensor_line)
		watch_start_signal();
	raw_spin_unlock_irqrestore(&sim.lock, flags);
}

static int chip_input(struct gpio_chip *chip, unsigned int offset)
{
	drive(offset, false, sim.line[offset].value);
	return 0;
}

static int chip_output(struct gpio_chip *chip, unsigned int offset, int value)
{
	drive(offset, true, value);
	return 0;
}

static void chip_set(struct gpio_chip *chip, unsigned int offset, int value)
{
	drive(offset, sim.line[offset].output, value);
}

static int chip_get(struct gpio_chip *chip, unsigned int offset)
{
	unsigned long flags;
	int level;

	raw_spin_lock_irqsave(&sim.lock, flags);
	if (offset == sensor_line)
		catch_up(ktime_get());
	level = level_of(&sim.line[offset]);
	raw_spin_unlock_irqrestore(&sim.lock, flags);
	return level;
}

static void irq_ack(struct irq_data *data)
{
}

static void irq_mask(struct irq_data *data)
{
	sim.line[irqd_to_hwirq(data)].irq_on = false;
	gpiochip_disable_irq(&sim.chip, irqd_to_hwirq(data));
}

static void irq_unmask(struct irq_data *data)
{
	unsigned long flags;

	gpiochip_enable_irq(&sim.chip, irqd_to_hwirq(data));
	raw_spin_lock_irqsave(&sim.lock, flags);
	sim.line[irqd_to_hwirq(data)].irq_on = true;
	if (irqd_to_hwirq(data) == sensor_line)
		play_if_heard();
	raw_spin_unlock_irqrestore(&sim.lock, flags);
}

static int irq_type(struct irq_data *data, unsigned int type)
{
	sim.line[irqd_to_hwirq(data)].irq_type = type;
	irq_set_handler_locked(data, handle_edge_irq);
	return 0;
}

static const struct irq_chip sim_irq_chip = {
	.name = "gpio-dhtsim",
	.irq_ack = irq_ack,
	.irq_mask = irq_mask,
	.irq_unmask = irq_unmask,
	.irq_set_type = irq_type,
	.flags = IRQCHIP_IMMUTABLE,
	GPIOCHIP_IRQ_RESOURCE_HELPERS,
};

/* "wait low high low high …" in ns; nothing makes the sensor mute. */
static ssize_t wave_ns_store(struct device *device, struct device_attribute *attribute,
			     const char *text, size_t size)
{
	const char *at = text;
	unsigned int count = 0;
	unsigned long flags;
	u32 width;
	int used;

	hrtimer_cancel(&sim.timer);
	raw_spin_lock_irqsave(&sim.lock, flags);
	while (count < WAVE_MAX && sscanf(at, " %u%n", &width, &used) == 1) {
		sim.wave[count++] = width;
		at += used;
	}
	sim.wave_len = count;
	sim.playing = false;
	raw_spin_unlock_irqrestore(&sim.lock, flags);
	return size;
}
static DEVICE_ATTR_WO(wave_ns);

/* "LINE 0" pulls a line low from outside, "LINE 1" lets it go. */
static ssize_t pull_store(struct device *device, struct device_attribute *attribute,
			  const char *text, size_t size)
{
	unsigned int offset, value;
	unsigned long flags;
	bool fire;
	int before;

	if (sscanf(text, "%u %u", &offset, &value) != 2 || offset >= nlines)
		return -EINVAL;
	raw_spin_lock_irqsave(&sim.lock, flags);
	before = level_of(&sim.line[offset]);
	sim.line[offset].pulled_low = !value;
	fire = fires(&sim.line[offset], before);
	raw_spin_unlock_irqrestore(&sim.lock, flags);
	if (fire)
		generic_handle_domain_irq_safe(sim.chip.irq.domain, offset);
	return size;
}
static DEVICE_ATTR_WO(pull);

/* Counters, then a letter and a digit for each line: input or output, and its level. */
static ssize_t state_show(struct device *device, struct device_attribute *attribute, char *page)
{
	ssize_t used = sysfs_emit(page, "starts=%llu short=%llu held_ns=%llu\n", sim.starts,
				  sim.short_starts, sim.held_ns);
	unsigned int offset;

	for (offset = 0; offset < nlines; offset++)
		used += sysfs_emit_at(page, used, "%u=%c%d%c", offset,
				      sim.line[offset].output ? 'o' : 'i',
				      level_of(&sim.line[offset]),
				      offset + 1 < nlines ? ' ' : '\n');
	return used;
}
static DEVICE_ATTR_RO(state);

static struct attribute *sim_attrs[] = {
	&dev_attr_wave_ns.attr,
	&dev_attr_pull.attr,
	&dev_attr_state.attr,
	NULL,
};
ATTRIBUTE_GROUPS(sim);

static struct gpiod_lookup_table dht11_lines = {
	.dev_id = "dht11",
	.table = { GPIO_LOOKUP("gpio-dhtsim", 4, NULL, GPIO_ACTIVE_HIGH), { } },
};

static int __init sim_init(void)
{
	int error;

	if (nlines > LINES_MAX || sensor_line >= nlines)
		return -EINVAL;
	raw_spin_lock_init(&sim.lock);
	hrtimer_init(&sim.timer, CLOCK_MONOTONIC, HRTIMER_MODE_ABS);
	sim.timer.function = play;
	chip_device = platform_device_register_simple("gpio-dhtsim", PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(chip_device))
		return PTR_ERR(chip_device);

	sim.chip.label = label;
	sim.chip.parent = &chip_device->dev;
	sim.chip.owner = THIS_MODULE;
	sim.chip.base = -1;
	sim.chip.ngpio = nlines;
	sim.chip.get_direction = chip_direction;
	sim.chip.direction_input = chip_input;
	sim.chip.direction_output = chip_output;
	sim.chip.get = chip_get;
	sim.chip.set = chip_set;
	if (irqs) {
		gpio_irq_chip_set_chip(&sim.chip.irq, &sim_irq_chip);
		sim.chip.irq.handler = handle_bad_irq;
		sim.chip.irq.default_type = IRQ_TYPE_NONE;
	}
	error = gpiochip_add_data(&sim.chip, NULL);
	if (error)
		goto no_chip;
	error = device_add_groups(&chip_device->dev, sim_groups);
	if (error)
		goto no_attributes;
	if (iio) {
		dht11_lines.table[0].key = label;
		dht11_lines.table[0].chip_hwnum = sensor_line;
		gpiod_add_lookup_table(&dht11_lines);
		dht11_device = platform_device_register_simple("dht11", PLATFORM_DEVID_NONE, NULL, 0);
	}
	return 0;

no_attributes:
	gpiochip_remove(&sim.chip);
no_chip:
	platform_device_unregister(chip_device);
	return error;
}

static void __exit sim_exit(void)
{
	if (iio) {
		platform_device_unregister(dht11_device);
		gpiod_remove_lookup_table(&dht11_lines);
	}
	hrtimer_cancel(&sim.timer);
	device_remove_groups(&chip_device->dev, sim_groups);
	gpiochip_remove(&sim.chip);
	platform_device_unregister(chip_device);
}

module_init(sim_init);
module_exit(sim_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("GPIO chip with a simulated DHT sensor, for tests");

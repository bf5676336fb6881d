-- network.lua FILE NAME MAC: what a network-config (version 2, ethernets) says of one interface, as lines for `nic`:
--   name NEW | mtu N | dhcp4 yes|no | dhcp6 yes|no | ra yes|no | address CIDR | route TO VIA METRIC
--   nameserver ADDRESS | search DOMAIN
-- An interface that it does not name, or no file at all, means DHCPv4 and router advertisements.
-- Each problem is one line on standard error; none stops the rest.
local document = require "kc.document"
local child, items = document.child, document.items
local path, interface, mac = arg[1], arg[2], arg[3]:lower()

local function problem(...)
    local text = string.format(...):gsub("%c", " ")
    io.stderr:write("network-config: ", text, "\n")
end

local function say(...)
    print(table.concat({...}, " "))
end

-- Only what can be an address, with or without a prefix length; `ip` judges the rest.
local function address(value)
    if type(value) == "string" and value:match("^[%x:.]+/?%d*$") and value:find("[.:]") then
        return value
    end
    problem("not an address: %s", tostring(value))
end

local function whole_number(value)
    return type(value) == "string" and value:match("^%d+$") or nil
end

local function glob_matches(pattern, text)
    pattern = pattern:gsub("[%^%$%(%)%%%.%[%]%+%-]", "%%%0"):gsub("%*", ".*"):gsub("%?", ".")
    return text:match("^" .. pattern .. "$") ~= nil
end

local function matches(key, ethernet)
    local match = child(ethernet, "match")
    if type(match) ~= "table" then
        return key == interface
    end
    local wanted_mac, wanted_name = child(match, "macaddress"), child(match, "name")
    if type(wanted_mac) == "string" and wanted_mac:lower() ~= mac then
        return false
    end
    if type(wanted_name) == "string" and not glob_matches(wanted_name, interface) then
        return false
    end
    return wanted_mac ~= nil or wanted_name ~= nil
end

local function find(network)
    local keys, ethernets = {}, child(network, "ethernets")
    for key, ethernet in pairs(type(ethernets) == "table" and ethernets or {}) do
        if matches(key, ethernet) then
            keys[#keys + 1] = key
        end
    end
    table.sort(keys)
    return keys[1] and ethernets[keys[1]]
end

local function say_route(to, via, metric)
    if to == "0.0.0.0/0" or to == "::/0" then
        to = "default"
    end
    -- The family of a default route is its gateway's.
    if to == "default" and via and via:find(":") then
        to = "::/0"
    end
    if to ~= "default" and not address(to) then
        return
    end
    if via and not address(via) then
        return
    end
    -- A field that is missing before one that is there is a dash.
    say("route", to, via or "-", metric)
end

local function say_ethernet(ethernet)
    local new_name = child(ethernet, "set-name")
    if type(new_name) == "string" and new_name ~= interface then
        if new_name:match("^[%w_][%w_.-]*$") and #new_name <= 15 then
            say("name", new_name)
        else
            problem("not an interface name: %s", new_name)
        end
    end
    local mtu = whole_number(child(ethernet, "mtu"))
    if mtu then
        say("mtu", mtu)
    end
    say("dhcp4", document.boolean(child(ethernet, "dhcp4")) and "yes" or "no")
    say("dhcp6", document.boolean(child(ethernet, "dhcp6")) and "yes" or "no")
    say("ra", document.boolean(child(ethernet, "accept-ra")) == false and "no" or "yes")

    for _, entry in ipairs(items(child(ethernet, "addresses"))) do
        -- An address may be a map of itself to its options; those are for other renderers.
        local cidr = type(entry) == "table" and next(entry) or entry
        if address(cidr) then
            say("address", cidr)
        end
    end
    for _, key in ipairs {"gateway4", "gateway6"} do
        local via = child(ethernet, key)
        if via then
            say_route("default", via)
        end
    end
    for _, route in ipairs(items(child(ethernet, "routes"))) do
        say_route(child(route, "to"), child(route, "via"), whole_number(child(route, "metric")))
    end
    local nameservers = child(ethernet, "nameservers")
    for _, server in ipairs(items(child(nameservers, "addresses"))) do
        if address(server) then
            say("nameserver", server)
        end
    end
    for _, domain in ipairs(items(child(nameservers, "search"))) do
        if type(domain) == "string" and domain:match("^[%w._-]+$") then
            say("search", domain)
        end
    end
end

local function say_default()
    say("dhcp4", "yes")
    say("dhcp6", "no")
    say("ra", "yes")
end

local text = document.read_file(path)
local network, reason = document.parse(text or "")
if reason then
    problem("%s", reason)
end
network = child(network, "network") or network
local version = child(network, "version")
if version and version ~= "2" then
    problem("version %s is not known here, only 2", tostring(version))
end
local ethernet = find(network)
if type(ethernet) == "table" then
    say_ethernet(ethernet)
else
    say_default()
end

import java.io.OutputStream;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;

import org.opensearch.Version;
import org.opensearch.common.settings.Settings;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.plugins.PluginInfo;

/**
 * One OpenSearch node on loopback, without the security manager and without the security plugin.
 *
 * <p>Arguments: settings of the node as {@code key=value}. Every plugin of {@link #PLUGINS} on the class path is loaded. The
 * node stops when its standard input ends, so that it never outlives the test that started it. Works with 2.19 and 3.x.
 */
public final class OneNode extends Node {
    /** Modules of the standard distribution, by their names in 2.x and 3.x, and the plugin neural-search. */
    private static final List<String> PLUGINS = List.of(
        "org.opensearch.transport.Netty4Plugin",
        "org.opensearch.transport.Netty4ModulePlugin",
        "org.opensearch.index.mapper.MapperExtrasPlugin",
        "org.opensearch.index.mapper.MapperExtrasModulePlugin",
        "org.opensearch.analysis.common.CommonAnalysisPlugin",
        "org.opensearch.analysis.common.CommonAnalysisModulePlugin",
        "org.opensearch.neuralsearch.plugin.NeuralSearch"
    );

    @SuppressWarnings({"unchecked", "rawtypes"}) // the elements are classes in 2.x, descriptions of plugins in 3.x
    private OneNode(Settings settings, Collection plugins) {
        super(InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), null, () -> "node"), plugins, false);
    }

    public static void main(String[] args) throws Exception {
        Settings.Builder settings = Settings.builder().put("network.host", "127.0.0.1");
        for (String arg : args) {
            String[] pair = arg.split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        try (OneNode node = new OneNode(settings.build(), plugins())) {
            node.start();
            System.out.println("started");
            System.in.transferTo(OutputStream.nullOutputStream());
        }
    }

    private static List<Object> plugins() {
        List<Object> plugins = new ArrayList<>();
        for (String name : PLUGINS) {
            try {
                Class<?> plugin = Class.forName(name);
                plugins.add(Version.CURRENT.major < 3 ? plugin : info(name));
            } catch (ClassNotFoundException e) {
                // of the other version, or a plugin that is not set up
            }
        }
        return plugins;
    }

    private static PluginInfo info(String name) {
        return new PluginInfo(name, "on the class path", "NA", Version.CURRENT, "17", name, null, List.of(), false);
    }
}
